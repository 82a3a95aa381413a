"""Tokenised files of examples, made once and shared: which reading gives which store, and how one comes to be.

Owns the key of a store: what the file holds, the tokenizer with its template, the reading with its settings, and the
code that tokenises. Invariants: the same key means the same examples; a store appears whole, under its key, or not at
all; one that is torn or altered is made anew; two processes that want the same one make it once. Nothing here holds
more than a row in memory. Torch-free.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from engine.data.chat import ChatTokenizer
from engine.data.example_store import SCHEMA, StoredExamples, StoreWriter, open_store, verify_store
from engine.data.examples import PreferenceExample, PromptExample, preference_row, prompt_row
from engine.data.labelled_examples import LabelledExample, labelled_row
from engine.data.reading import ReadingCounts, RowExamples, no_usable_row, reader_of, stream_rows
from engine.data.reading_processes import stream_rows_by_processes
from engine.data.sft_examples import SftExample, sft_row
from engine.errors import DataError
from engine.run.config import RunConfig
from engine.run.durable_files import disk_faults_named, fsync_folder
from engine.run.locks import hold
from engine.run.method_names import ON_ROLLOUTS

E = TypeVar("E")
_POLL_S = 0.2
MANY_BYTES = 8 << 20
"""A smaller file is read before other processes would have begun."""


@dataclass(frozen=True)
class Reading(Generic[E]):
    """How rows become examples."""

    kind: type[E]
    read: Callable[..., RowExamples[E]]
    """Called with (row, name, tokenizer=…, max_length=…) and the settings."""
    max_length: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its other arguments; all of them are in the key."""
    rows_each: tuple[int, ...] = ()
    """Rows from each source, where the file holds several one after another. In the key, because counts are kept."""


@dataclass(frozen=True)
class Tokenised(Generic[E]):
    """A file's examples."""

    examples: StoredExamples[E]
    counts: ReadingCounts
    """What reading the file lost and changed."""
    counts_each: tuple[ReadingCounts, ...] = ()
    """The same for each source, where the file holds several."""


def reading_for(config: RunConfig) -> Reading[Any]:
    """How the rows of a run of this method are read."""
    longest = config.data.max_length
    if config.run.method == "sft":
        return Reading(
            SftExample,
            sft_row,
            longest,
            {"train_on": config.sft.train_on, "split": config.sft.rewritten_turns == "apart"},
        )
    if config.run.method in ON_ROLLOUTS:
        return prompts_reading(longest)
    if config.run.method == "kto":
        return Reading(LabelledExample, labelled_row, longest)
    return Reading(PreferenceExample, preference_row, longest)


def prompts_reading(max_length: int) -> Reading[PromptExample]:
    """The prompts of rows of any kind, for rollouts and for a probe; texts give none."""
    return Reading(PromptExample, prompt_row, max_length)


def key_of(content_sha256: str, tokenizer: ChatTokenizer, reading: Reading[Any]) -> str:
    """The name of the store: a hash of everything that its content depends on."""
    rows_each = {"rows_each": reading.rows_each} if reading.rows_each else {}
    parts = {
        "schema": SCHEMA,
        "content": content_sha256,
        "tokenizer": tokenizer.sha256,
        "reading": [reading.kind.__name__, reading.read.__name__, reading.max_length, dict(reading.settings)],
        "code": _code_sha256(),
        **rows_each,
    }
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def tokenise(
    file: Path,
    key: str,
    blobs: Path,
    tokenizer: ChatTokenizer,
    reading: Reading[E],
    *,
    each_row: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
    processes: int = 1,
) -> Tokenised[E]:
    """The examples of `file` from its store in `blobs`, which is made where it is missing, torn or altered.

    A large file is shared out to so many `processes`.

    `each_row` is called for each row that is tokenised, `check` while another process makes the same store. Both may
    raise; then nothing is left behind. Raises DataError for the file, RunFolderError for a full disk.
    """
    store = blobs / key
    if (found := _whole(store, reading)) is not None:
        return found
    with disk_faults_named("keeping tokenised examples", store), _alone(blobs, key, check):
        if (found := _whole(store, reading)) is not None:
            return found
        aside = blobs / f".{key}.new"
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed; its maker would hold the lock
        aside.mkdir(mode=0o700)
        try:
            _write(file, aside, tokenizer, reading, each_row, processes)
            shutil.rmtree(store, ignore_errors=True)
            aside.rename(store)
            fsync_folder(blobs)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return _opened(store, reading)


def require_some(tokenised: Tokenised[Any], file: Path, max_length: int) -> None:
    """Raises DataError where the file gave no example, and says what became of its rows."""
    if not len(tokenised.examples):
        raise DataError(f"{file}: {no_usable_row(tokenised.counts, max_length)}")


def _write(
    file: Path, aside: Path, tokenizer: ChatTokenizer, reading: Reading[E], each_row: Callable[[], None], processes: int
) -> None:
    counts = ReadingCounts()
    counts_each = [ReadingCounts() for _ in reading.rows_each]
    ends = list(accumulate(reading.rows_each))

    how = (reading.read, reading.max_length, reading.settings)
    if processes > 1 and file.stat().st_size >= MANY_BYTES:
        rows = stream_rows_by_processes(file, tokenizer, *how, counts, processes)
    else:
        rows = stream_rows(file, reader_of(tokenizer, *how), counts)
    writer: StoreWriter[E] = StoreWriter(aside, reading.kind)
    try:
        for number, row in enumerate(rows):
            writer.add_row(row.examples)
            if counts_each:
                counts_each[min(bisect_right(ends, number), len(ends) - 1)].add(row)
            each_row()
        writer.finish({"counts": counts.as_json(), "counts_each": [each.as_json() for each in counts_each]})
    finally:
        writer.discard()


def _whole(store: Path, reading: Reading[E]) -> Tokenised[E] | None:
    """The store's content where every byte is as it was written; None where it is missing or is not."""
    if not store.is_dir():
        return None
    try:
        verify_store(store)
        return _opened(store, reading)
    except (DataError, OSError, KeyError, TypeError, ValueError):
        return None


def _opened(store: Path, reading: Reading[E]) -> Tokenised[E]:
    examples, facts = open_store(store, reading.kind)
    counts_each = tuple(map(ReadingCounts.from_json, facts["counts_each"]))
    return Tokenised(examples, ReadingCounts.from_json(facts["counts"]), counts_each)


@contextmanager
def _alone(blobs: Path, key: str, check: Callable[[], None]) -> Iterator[None]:
    """Hold the right to make a store; waits while another process has it.

    The lock's file stays: were it removed, one process could hold the old file and another a new one.
    """
    blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    while (lock := hold(blobs / f".{key}.lock")) is None:
        check()
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        lock.release()


@cache
def _code_sha256() -> str:
    """Of the modules and the library that decide which ids a row gets: a change to them makes new stores."""
    digest = hashlib.sha256(version("tokenizers").encode())
    for module in sorted(Path(__file__).parent.rglob("*")):
        if module.suffix in (".py", ".jinja"):
            digest.update(module.read_bytes())
    return digest.hexdigest()
