"""Tables fit, JSON is exact in a pipe and harmless on a terminal, numbers read well."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from workbench.terminal_output import (
    Column,
    Progress,
    counted,
    duration,
    field_lines,
    json_line,
    local_time,
    number,
    table_lines,
    time_left,
    write_json,
    write_table,
)
from workbench.text_wrapping import cut


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class TestTables:
    def test_columns_are_aligned_and_numbers_stand_right(self) -> None:
        lines = table_lines([Column("name"), Column("rows", right=True)], [["a", "5"], ["longer", "1,000"]])
        assert lines == ["name     rows", "a           5", "longer  1,000"]

    def test_a_wide_table_is_cut_only_where_it_may_be(self) -> None:
        columns = [Column("id"), Column("from", shrinks=True)]
        lines = table_lines(columns, [["i" * 40, "f" * 80]], 80)
        assert max(map(len, lines)) == 80
        assert "i" * 40 in lines[1]
        assert lines[1].endswith("…")

    def test_nothing_is_cut_in_a_pipe(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        columns, rows = [Column("id"), Column("from", shrinks=True)], [["i" * 40, "f" * 80]]
        write_table(columns, rows, empty="")
        assert "f" * 80 in capsys.readouterr().out
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        write_table(columns, rows, empty="")
        assert "f" * 80 not in terminal.getvalue()
        assert "f…" in terminal.getvalue()

    def test_strangers_text_cannot_move_the_cursor(self) -> None:
        assert "\x1b" not in "".join(table_lines([Column("x")], [["\x1b[2J\n"]]))
        assert all("\x1b" not in line for line in field_lines({"a": "one\n\x1b[2J"}))

    def test_wide_characters_count_twice(self) -> None:
        assert cut("日本語", 5) == "日本…"


class TestJson:
    def test_a_pipe_gets_exactly_what_is_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        write_json({"text": "é \x9b \u202e", "bad": float("nan"), "list": (1, float("inf"))})
        out = capsys.readouterr().out
        assert "\u202e" in out
        assert json.loads(out) == {"text": "é \x9b \u202e", "bad": None, "list": [1, None]}

    def test_a_terminal_gets_the_same_json_in_ascii(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        write_json({"text": "\x9b\u202e\x7f\x1b"})
        assert screen.getvalue().isascii()
        assert "\x7f" not in screen.getvalue()
        assert json.loads(screen.getvalue()) == {"text": "\x9b\u202e\x7f\x1b"}

    def test_half_a_surrogate_pair_can_be_written(self) -> None:
        assert json.loads(json_line({"text": "\ud83d"})) == {"text": "\ud83d"}


class TestWords:
    def test_a_time_left_is_said_in_one_way(self) -> None:
        assert [time_left(s) for s in (0.2, 4.4, 42.4, 200, 7500)] == [
            "0s left", "4s left", "42s left", "3m 20s left", "2h 05m left",
        ]  # fmt: skip

    def test_durations(self) -> None:
        assert [duration(s) for s in (None, 4.21, 59, 200, 7500, 200_000)] == [
            "-", "4.2s", "59s", "3m 20s", "2h 05m", "2d 07h",
        ]  # fmt: skip

    def test_numbers(self) -> None:
        assert [number(v) for v in (None, float("nan"), 1234, 0.5, 0.0, 1e-5, 123456.0)] == [
            "-", "-", "1,234", "0.500", "0.000", "1e-05", "1.23e+05",
        ]  # fmt: skip


def test_progress_is_one_renewed_line_on_a_terminal_and_rare_lines_elsewhere() -> None:
    screen, file = Terminal(), io.StringIO()
    for stream in (screen, file):
        bar = Progress("reading \x1b", stream=stream)
        bar._last -= 60
        bar.update(5, 10, "rows")
        bar.update(6, 10, "rows")
        bar.close()
    assert screen.getvalue() == "\r\x1b[Kreading ␛  50 %  rows\r\x1b[K"
    assert file.getvalue() == "reading ␛  50 %  rows\n"


def test_counts_have_their_noun_and_times_are_short() -> None:
    assert [counted(1, "row"), counted(2000, "row"), counted(0, "loss", "losses")] == [
        "1 row",
        "2,000 rows",
        "0 losses",
    ]
    assert re.fullmatch(r"2026-11-2\d \d\d:\d\d", local_time("2026-11-24T12:02:03.123456+00:00"))
    assert local_time("unknown") == "unknown"
