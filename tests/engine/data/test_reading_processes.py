"""A large file that several processes read gives what one would give, and none of them outlives the reading."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.data import reading_processes
from engine.data.chat import ChatTokenizer
from engine.data.examples import preference_row, prompt_row
from engine.data.labelled_examples import labelled_row
from engine.data.reading import ReadingCounts, RowExamples, reader_of, stream_rows
from engine.data.reading_processes import stream_rows_by_processes
from engine.data.sft_examples import sft_row
from engine.errors import DataError, ModelError
from tests.engine.run_maker import answer, preference_rows, user, write_rows


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_processes, "LINES_A_PORTION", 3)


@pytest.fixture
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were started."""
    started: list[int] = []
    popen = reading_processes.subprocess.Popen

    def counted(*args: Any, **options: Any) -> Any:
        process = popen(*args, **options)
        started.append(process.pid)
        return process

    monkeypatch.setattr(reading_processes.subprocess, "Popen", counted)
    return started


def shared(file: Path, tokenizer: ChatTokenizer, counts: ReadingCounts, **how: Any) -> Iterator[RowExamples[Any]]:
    read: Callable[..., Any] = how.pop("read", preference_row)
    return stream_rows_by_processes(file, tokenizer, read, 64, how, counts, 2)


def assert_ended(pids: list[int]) -> None:
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_rows_order_and_counts_are_those_of_one_process(
    tmp_path: Path, tokenizer: ChatTokenizer, pids: list[int]
) -> None:
    talk = [*user("Say sea"), *answer("Sea."), *user("And?"), *answer("Rain. " * 30)]
    rows: list[dict[str, Any]] = [{"messages": talk[: 2 + 2 * (n % 2)], "id": f"r{n}"} for n in range(7)]
    rows[3:3] = [{"messages": user("nobody answers")}, {"text": ""}, {"messages": user("again nobody")}]
    write_rows(tmp_path / "rows.jsonl", rows)
    text = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join([*text[:4], "", *text[4:]]) + "\n")
    alone, together = ReadingCounts(), ReadingCounts()
    how = {"train_on": "assistant"}
    expected = list(stream_rows(tmp_path / "rows.jsonl", reader_of(tokenizer, sft_row, 64, how), alone))
    assert list(shared(tmp_path / "rows.jsonl", tokenizer, together, read=sft_row, **how)) == expected
    assert together == alone
    assert "the first at line 4" in together.refusal
    assert (together.truncated, together.dropped.total(), len(pids)) == (3, 3, 2)
    assert_ended(pids)


@pytest.mark.parametrize("read", [preference_row, labelled_row, prompt_row])
def test_examples_of_every_kind_arrive_as_they_were_made(
    tmp_path: Path, tokenizer: ChatTokenizer, read: Callable[..., Any]
) -> None:
    rows = preference_rows(7)
    for number, row in enumerate(rows):
        row |= {"weight": 1 / (number + 3), "margin": None if number % 2 else 0.1, "id": f"Zürich {number}"}
        row |= {"completion": row["chosen"], "label": number % 2 == 0}
    write_rows(tmp_path / "rows.jsonl", rows)
    alone, together = ReadingCounts(), ReadingCounts()
    expected = list(stream_rows(tmp_path / "rows.jsonl", reader_of(tokenizer, read, 64, {}), alone))
    assert list(shared(tmp_path / "rows.jsonl", tokenizer, together, read=read)) == expected
    assert together == alone
    assert sum(len(row.examples) for row in expected) == 7


@pytest.mark.parametrize("line", ['{"prompt": "a"}', "{torn", '{"prompt": "\\ud800"}', "\udcff"])
def test_a_broken_line_is_named_and_what_came_before_it_was_given(
    tmp_path: Path, tokenizer: ChatTokenizer, pids: list[int], line: str
) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, preference_rows(12))
    text = file.read_text().splitlines()
    file.write_bytes("\n".join([*text[:7], line, *text[7:]]).encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(DataError) as alone:
        list(stream_rows(file, reader_of(tokenizer, preference_row, 64, {}), ReadingCounts()))
    rows = shared(file, tokenizer, ReadingCounts())
    assert len([next(rows) for _ in range(7)]) == 7
    with pytest.raises(DataError) as together:
        next(rows)
    assert str(together.value) == str(alone.value)
    assert "line 8" in str(alone.value)
    assert_ended(pids)


def test_a_fault_of_the_model_is_told_as_what_it_is(
    tmp_path: Path, make_tiny_tokenizer: Callable[..., None], pids: list[int]
) -> None:
    make_tiny_tokenizer(tmp_path / "bare", chat_template=None)
    write_rows(tmp_path / "rows.jsonl", preference_rows(4))
    rows = shared(tmp_path / "rows.jsonl", ChatTokenizer.from_folder(tmp_path / "bare"), ReadingCounts())
    with pytest.raises(ModelError, match="the model has no chat template"):
        next(rows)
    assert_ended(pids)


def test_who_stops_asking_ends_them(tmp_path: Path, tokenizer: ChatTokenizer, pids: list[int]) -> None:
    write_rows(tmp_path / "rows.jsonl", preference_rows(30))
    rows = shared(tmp_path / "rows.jsonl", tokenizer, ReadingCounts())
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert len(pids) == 2
    assert_ended(pids)


def test_one_that_is_killed_ends_the_reading(tmp_path: Path, tokenizer: ChatTokenizer, pids: list[int]) -> None:
    write_rows(tmp_path / "rows.jsonl", preference_rows(30))
    rows = shared(tmp_path / "rows.jsonl", tokenizer, ReadingCounts())
    next(rows)
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(DataError, match=r"rows\.jsonl: a process that was reading it has ended with code -9"):
        list(rows)
    assert_ended(pids)
