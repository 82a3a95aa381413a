"""A row as a model sees it, and as lines that say without colour which tokens are trained and which are cut.

Owns the child that renders and tokenises (`engine.show_tokens`), and the form of the lines: a token ends at a thin bar,
a special token stands in double brackets, a line holds tokens of one kind and its first sign says which. Invariants:
ids and masks are the engine's own; this process reads neither a tokenizer nor a template.
"""

from __future__ import annotations

import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from engine.run.safe_text import safe
from workbench.child_programs import child_environment
from workbench.errors import UsageError, WorkbenchError
from workbench.text_wrapping import cells, cut, fit, wrap

if TYPE_CHECKING:
    from workbench.model_names import ResolvedModel

TRAINED, CONTEXT, CUT = "▌ ", "  ", "× "
"""What begins a line: its tokens are trained, are read only, or are lost to max_length."""
BAR, PART = "│", "…"
"""The end of a token; a token that is a part of a character."""
WAIT_S = 60.0
TRAIN_ON = ("completion", "assistant", "last", "all")
Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class TokenChoice:
    """Whose tokens, and under which limit."""

    model: str = "sample"
    max_length: int = 1024
    train_on: str = "completion"

    def __str__(self) -> str:
        return f"{self.model} max_length={self.max_length} train_on={self.train_on}"

    @classmethod
    def parse(cls, text: str) -> TokenChoice:
        """MODEL, then max_length=N and train_on=WHAT where they are not the default; UsageError says what is wrong."""
        words = text.split()
        if not words:
            raise UsageError("name a model, as --model takes it: sample, run:ID, ./folder, hf:ORG/NAME")
        given = {"max_length": str(cls.max_length), "train_on": cls.train_on}
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if not equals or name not in given:
                raise UsageError(f"{word!r}: expected max_length=N or train_on=WHAT behind the model")
            given[name] = value
        if not re.fullmatch(r"[0-9]{1,9}", given["max_length"]) or int(given["max_length"]) < 2:
            raise UsageError(f"max_length={given['max_length']}: expected a whole number, 2 or more")
        if given["train_on"] not in TRAIN_ON:
            raise UsageError(f"train_on={given['train_on']}: expected one of {', '.join(TRAIN_ON)}")
        return cls(words[0], int(given["max_length"]), given["train_on"])


class TokenReader:
    """The child that tokenises; started with the first row, ended with `close`."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def read(
        self,
        model: ResolvedModel,
        choice: TokenChoice,
        row: dict[str, Any],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """`engine.data.row_tokens` of a canonical row, as JSON. WorkbenchError where the row or the model refuses."""
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "engine.show_tokens"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=child_environment(),
                start_new_session=True,
            )  # fmt: skip
        request = {**model.for_job(), "row": row, "max_length": choice.max_length, "train_on": choice.train_on}
        request["folder"] = request.pop("path")
        found = self._answer(orjson.dumps(request, default=str) + b"\n", should_stop)
        if "error" in found:
            raise WorkbenchError(str(found["error"]))
        return found

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()

    def _answer(self, request: bytes, should_stop: Callable[[], bool]) -> dict[str, Any]:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        end = time.monotonic() + WAIT_S
        waiting = select.poll()
        waiting.register(child.stdout, select.POLLIN | select.POLLHUP)
        with suppress(BrokenPipeError):
            child.stdin.write(request)
            child.stdin.flush()
        while not waiting.poll(50):
            if should_stop() or time.monotonic() > end:
                self.close()  # a template may loop for ever
                raise WorkbenchError(f"the chat template took longer than {WAIT_S:.0f} s, or was not waited for.")
        try:
            found: dict[str, Any] = orjson.loads(child.stdout.readline())
        except orjson.JSONDecodeError as error:
            self.close()
            raise WorkbenchError(
                "the process that tokenises has ended; the row or the tokenizer is too much."
            ) from error
        return found


def token_lines(found: dict[str, Any], choice: TokenChoice, width: int) -> Lines:
    """(line, style) of a row in tokens."""
    lines: Lines = [
        (cut(f"{choice.model} · {TRAINED}trained  {CUT}cut  ⟦special⟧  {BAR} ends a token", width), "faint")
    ]
    for reason in found["dropped"]:
        lines += [(line, "bad") for line in wrap(f"✗ not trained on: {reason}", width)]
    lines += [(line, "faint") for line in (wrap(found["treatment"], width) if found["treatment"] else ())]
    for sequence in found["sequences"]:
        lines += [("", "plain"), *((line, "title") for line in wrap(_summary(sequence, choice), width))]
        lines += _sequence_lines(sequence, choice, width)
    return lines


def _summary(sequence: dict[str, Any], choice: TokenChoice) -> str:
    name = f"{sequence['name']} · " if sequence["name"] else ""
    lost = sequence["total"] - sequence["cut_at"]
    words = f"{name}{sequence['total']:,} tokens · {sequence['trained']:,} trained"
    if lost:
        words += f" · {lost:,} cut at max_length {choice.max_length:,}, {sequence['trained_cut']:,} of them trained"
    return words


def _sequence_lines(sequence: dict[str, Any], choice: TokenChoice, width: int) -> Iterator[tuple[str, str]]:
    line, kind = "", ""
    cut_at = sequence["cut_at"]
    for place, token in enumerate(sequence["tokens"]):
        if place == cut_at:
            if line:
                yield kind + line, _STYLES[kind]
            line = ""
            rule = f"── max_length {choice.max_length:,}: what follows is cut "
            yield fit(rule + "─" * width, width), "bad"
        new = CUT if place >= cut_at else TRAINED if token["trained"] else CONTEXT
        for text in _fitting(_shown(token), width - len(new)):
            if line and (new != kind or cells(new + line + text) > width):
                yield kind + line, _STYLES[kind]
                line = ""
            line, kind = line + text, new
        if token["text"].endswith("\n"):
            yield kind + line, _STYLES[kind]
            line = ""
    if line:
        yield kind + line, _STYLES[kind]
    if (hidden := sequence["total"] - len(sequence["tokens"])) > 0:
        yield f"… {hidden:,} more tokens", "faint"


_STYLES = {TRAINED: "good", CONTEXT: "plain", CUT: "faint"}


def _shown(token: dict[str, Any]) -> str:
    """A token as it is drawn: a space and a line end are seen by the bars around them."""
    if not token["text"]:
        return PART + BAR
    text = safe(token["text"])
    return f"⟦{text}⟧" if token["special"] else text + BAR


def _fitting(text: str, width: int) -> Iterator[str]:
    """Pieces of a text, each no wider than a line."""
    piece = ""
    for letter in text:
        if cells(piece + letter) > width:
            yield piece
            piece = ""
        piece += letter
    if piece:
        yield piece
