"""Reading a large file with several processes: lines go out in portions, what they gave comes back in order.

Owns the processes and what is said to them: `python -m engine.data.reading_processes`, told once how rows become
examples, then given portions of numbered lines on its input. Invariants: rows, their order and every count are those of
`reading.stream_rows`; each process holds one portion at a time; none outlives its starter, whatever kills that, because
its input ends then. What goes through the pipes is data alone, one JSON value a line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from engine.data.chat import ChatTokenizer
from engine.data.examples import PreferenceExample, PromptExample, preference_row, prompt_row
from engine.data.labelled_examples import LabelledExample, labelled_row
from engine.data.reading import ReadingCounts, ReadRow, RowExamples, numbered_lines, reader_of, row_of_line
from engine.data.sft_examples import SftExample, sft_row
from engine.data.tokenizer_files import TokenizerFiles
from engine.errors import ConfigError, DataError, EngineError, ModelError
from engine.run.detached_start import import_root

LINES_A_PORTION = 256
_ENDED = "a process that was reading it has ended with code {}; see the end of engine.log, then try again"

_READERS: dict[str, tuple[Callable[..., RowExamples[Any]], type[Any]]] = {
    read.__name__: (read, kind)
    for read, kind in (
        (sft_row, SftExample), (preference_row, PreferenceExample), (labelled_row, LabelledExample),
        (prompt_row, PromptExample),
    )
}  # fmt: skip
"""What a process may be told to read with, and what that makes."""
_FAULTS = {kind.__name__: kind for kind in (ConfigError, DataError, ModelError)}

Lines = list[tuple[int, bytes]]
Answer = tuple[list[tuple[RowExamples[Any], str]], EngineError | None]
"""What the lines gave, each with the template's refusal; and what ends the reading at the line behind them."""


def stream_rows_by_processes(
    file: Path,
    tokenizer: ChatTokenizer,
    read: Callable[..., RowExamples[Any]],
    max_length: int,
    settings: Mapping[str, Any],
    counts: ReadingCounts,
    processes: int,
) -> Iterator[RowExamples[Any]]:
    """What each row of `file` gives, in order. Raises as `stream_rows` does."""
    portions = _portions(file)
    busy: deque[tuple[_Reader, Lines]] = deque()
    with ExitStack() as running:
        for _ in range(processes):
            if not (lines := next(portions, [])):
                break
            reader = running.enter_context(_Reader(file, tokenizer, read, max_length, settings))
            reader.give(lines)
            busy.append((reader, lines))
        while busy:
            reader, lines = busy.popleft()
            results, fault = reader.answer()
            if more := next(portions, []):
                reader.give(more)
                busy.append((reader, more))
            for (number, _), (result, refusal) in zip(lines, results, strict=False):
                counts.add_line(result, number, refusal)
                yield result
            if fault is not None:
                raise fault


def _portions(file: Path) -> Iterator[Lines]:
    lines = numbered_lines(file)
    while portion := list(islice(lines, LINES_A_PORTION)):
        yield portion


class _Reader:
    """One process; leaving the block ends it."""

    def __init__(
        self,
        file: Path,
        tokenizer: ChatTokenizer,
        read: Callable[..., RowExamples[Any]],
        max_length: int,
        settings: Mapping[str, Any],
    ) -> None:
        self._file = file
        _, self._kind = _READERS[read.__name__]
        path = os.pathsep.join(filter(None, (str(import_root()), os.environ.get("PYTHONPATH", ""))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.data.reading_processes"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        files, template, tokens = tokenizer.made_of()
        self._say(
            {
                "file": str(file), "tokenizer": files.as_json(), "template": template, "tokens": tokens,
                "read": read.__name__, "max_length": max_length, "settings": dict(settings),
            }
        )  # fmt: skip

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def give(self, lines: Lines) -> None:
        """Only to one that has nothing to do: it reads all before it answers, so no pipe fills on both sides."""
        # A line may be no UTF-8, which the reading tells: Latin-1 has a character for every byte.
        self._say([(number, line.decode("latin-1")) for number, line in lines])

    def answer(self) -> Answer:
        """What the lines gave."""
        assert self._process.stdout is not None
        try:
            said = orjson.loads(self._process.stdout.readline())
        except orjson.JSONDecodeError as error:  # nothing, or a part of a line
            raise self._fault() from error
        fault = _FAULTS.get(said["fault"][0], EngineError)(said["fault"][1]) if said["fault"] else None
        return [(self._row(row), refusal) for row, refusal in said["rows"]], fault

    def _row(self, said: Mapping[str, Any]) -> RowExamples[Any]:
        examples = tuple(self._kind(**_with_tuples(example)) for example in said["examples"])
        return RowExamples(**{**_with_tuples(said), "examples": examples})

    def _say(self, what: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(orjson.dumps(what, option=orjson.OPT_APPEND_NEWLINE))
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._fault() from error

    def _fault(self) -> DataError:
        return DataError(f"{self._file}: {_ENDED.format(self._process.wait())}")


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of an example as it has them: JSON knows no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def main() -> int:
    """Be one of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter ends this process, by ending its input at the latest
    given, taken = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    with suppress(BrokenPipeError, orjson.JSONDecodeError):  # the starter is gone, maybe in the middle of a line
        how = orjson.loads(given.readline())
        tokenizer = ChatTokenizer.of_files(TokenizerFiles.from_json(how["tokenizer"]), how["template"], how["tokens"])
        read, _ = _READERS[how["read"]]
        read_row = reader_of(tokenizer, read, how["max_length"], how["settings"])
        while lines := given.readline():
            numbered = [(number, line.encode("latin-1")) for number, line in orjson.loads(lines)]
            rows, fault = _answer(Path(how["file"]), numbered, read_row)
            told = None if fault is None else (type(fault).__name__, str(fault))
            taken.write(orjson.dumps({"rows": rows, "fault": told}, option=orjson.OPT_APPEND_NEWLINE))
            taken.flush()
    os._exit(0)  # no flush of a pipe that nobody reads


def _answer(file: Path, lines: Lines, read: ReadRow[Any]) -> Answer:
    results: list[tuple[RowExamples[Any], str]] = []
    for number, line in lines:
        try:
            results.append(row_of_line(file, number, line, read))
        except EngineError as error:
            return results, error
    return results, None


if __name__ == "__main__":
    sys.exit(main())
