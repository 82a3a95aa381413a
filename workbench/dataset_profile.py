"""What is in a dataset: its columns as the file has them, and its rows as a model would read them.

Owns one pass over the rows that counts everything: nulls, distinct and top values of each column; lengths of each part
in characters and, with a model, of each example in tokens; turns, roles and scripts. The first rows alone are a sample,
which says so wherever it is shown. Invariants: the file is read once and changed never; memory is bounded but for 8
bytes a text; `progress` may raise at any step; what spills to the disk goes with the pass. Findings are lint's.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.run.user_cache import user_cache_folder
from workbench.analysis_cache import cached
from workbench.canonical_rows import said_in
from workbench.column_profile import ColumnProfile
from workbench.length_profile import Lengths
from workbench.lint_rows import RowSource, SourceRow, row_source
from workbench.lint_texts import texts_of
from workbench.preferences import Side
from workbench.steps import Progress, Steps
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.lint_tokens import TokenChecks

SCHEMA = 2
SAMPLE_ROWS = 2000
MOST_COLUMNS = 400
"""So many columns are profiled; the others are named."""
_EVERY = 256
_SCRIPT_CHARACTERS = 1000
"""Of a text so many characters are looked at to tell its script."""
_PARTS = ("text", "prompt", "messages", "completion", "chosen", "rejected", "a", "b")
_OTHER = "OTHER"


def profile(
    workspace: Workspace,
    name: str,
    *,
    side: Side | None = None,
    model: str = "",
    max_length: int = 0,
    sample: int = 0,
    again: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The profile of the dataset (or that side of the preference set) called `name`, as JSON.

    With `sample` only the first so many rows are read. With `model` examples are counted in tokens, and those above
    `max_length` (1,024 where it is 0). What was worked out before about this very file comes from the cache.
    """
    from workbench.lint_tokens import MAX_LENGTH, TokenChecks

    source = row_source(workspace, name, side)
    tokens = TokenChecks(workspace, model, max_length or MAX_LENGTH) if model else None
    reading = asdict(source.dataset.info.recognition) if source.dataset else {}
    what = {
        "profile": source.sha256, "name": source.name, "reading": reading, "sample": sample,
        "tokenizer": tokens.sha256 if tokens else "", "limit": tokens.max_length if tokens else 0,
    }  # fmt: skip

    def work() -> dict[str, Any]:
        with _spill_folder() as spill:
            return _Pass(source, tokens, spill).read(sample, progress)

    return cached(what, work, again=again)


@contextmanager
def _spill_folder() -> Iterator[Path | None]:
    """A folder for what does not fit in memory, in the person's cache, because /tmp may be memory; None without one."""
    folder = user_cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix="values-", dir=folder)
    except OSError:
        yield None
        return
    with made as name:
        yield Path(name)


class _Pass:
    """One reading of a file."""

    def __init__(self, source: RowSource, tokens: TokenChecks | None, spill: Path | None) -> None:
        self._source, self._tokens, self._spill = source, tokens, spill
        self._columns: dict[str, ColumnProfile] = {}
        self._left_out: dict[str, None] = {}
        self._lengths: dict[str, Lengths] = {}
        self._token_lengths = Lengths()
        self._turns: Counter[int] = Counter()
        self._roles: Counter[str] = Counter()
        self._scripts: Counter[str] = Counter()
        self._rows = self._readable = self._usable = self._refused = 0

    def read(self, sample: int, progress: Progress | None) -> dict[str, Any]:
        steps = Steps(min(sample, self._source.rows) if sample else self._source.rows, progress)
        for one in islice(self._source.read(), sample or None):
            self._rows += 1
            self._add(one)
            if self._rows % _EVERY == 0:
                steps.add(_EVERY)
        return self._told(bool(sample) and self._rows < self._source.rows, lambda: steps.add(0))

    def _add(self, one: SourceRow) -> None:
        if one.raw is not None:
            self._readable += 1
            for name, value in one.raw.items():
                column = self._columns.get(name)
                if column is None:
                    if len(self._columns) >= MOST_COLUMNS:
                        self._left_out[name] = None
                        continue
                    place = self._spill / str(len(self._columns)) if self._spill else None
                    column = self._columns[name] = ColumnProfile(name, place)
                column.add(value)
        if one.row is not None:
            self._usable += 1
            self._add_row(one.row)

    def _add_row(self, row: Any) -> None:
        said: list[Mapping[str, Any]] = []
        for part in _PARTS:
            if (value := row.get(part)) is not None:
                self._lengths.setdefault(part, Lengths()).add(_characters(value))
                if isinstance(value, list) and part in ("prompt", "messages", "completion", "chosen", "a"):
                    said += value
        if said:
            self._turns[len(said)] += 1
            self._roles.update({str(turn["role"]) for turn in said})
            self._roles["tool calls"] += any("tool_calls" in turn for turn in said)
        self._scripts[main_script(texts_of(row))] += 1
        if self._tokens is not None:
            length = self._tokens.length(row)
            if length is None:
                self._refused += 1
            else:
                self._token_lengths.add(length)

    def _told(self, is_sample: bool, check: Callable[[], None]) -> dict[str, Any]:
        tokens = self._tokens
        counted = (
            {"tokens": {"model": tokens.model, "refused": self._refused,
                        **self._token_lengths.as_json(tokens.max_length)}}
            if tokens else {}
        )  # fmt: skip
        return {
            "schema": SCHEMA,
            "dataset": self._source.name,
            "shape": self._source.shape,
            "rows": self._rows,
            "usable": self._usable,
            "sample_of": self._source.rows if is_sample else None,
            "columns": [column.as_json(self._readable, check) for column in self._columns.values()],
            "columns_left_out": list(self._left_out),
            "characters": {part: lengths.as_json() for part, lengths in self._lengths.items()},
            **counted,
            "turns": {str(turns): count for turns, count in sorted(self._turns.items())},
            "rows_with": _most_first(self._roles),
            "scripts": _most_first(self._scripts),
        }


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count}


def _characters(value: Any) -> int:
    return len(value) if isinstance(value, str) else sum(len(said_in(turn)) for turn in value)


def main_script(texts: Iterator[str]) -> str:
    """The script most letters of some texts belong to, by Unicode's names of them: "latin", "cjk"; "none" for none."""
    counts: Counter[str] = Counter()
    for text in texts:
        piece = text[:_SCRIPT_CHARACTERS]
        if piece.isascii():
            counts["latin"] += sum(map(str.isalpha, piece))
        else:
            counts.update(_script_of(letter) for letter in piece if letter.isalpha())
    return counts.most_common(1)[0][0] if counts.total() else "none"


_known: dict[str, str] = {}


def _script_of(letter: str) -> str:
    script = _known.get(letter)
    if script is None:
        script = _known[letter] = unicodedata.name(letter, _OTHER).split()[0].split("-")[0].lower()
    return script
