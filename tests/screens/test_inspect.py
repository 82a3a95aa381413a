"""Inspect: rows of any dataset in a grid, one row to read, a filter whose hits appear, and files that misbehave."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import duckdb
import orjson
import pytest
from textual.geometry import Region

from engine.run.safe_text import safe
from screens.app import WorkbenchApp
from screens.grid import Grid
from screens.inspect import Inspect
from screens.row_view import RowView
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from tests.workbench import crashing_parser
from workbench.dataset_store import add_dataset
from workbench.dataset_window_jsonl import JsonLinesWindow
from workbench.workspace import Workspace, init


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of rows go to a folder of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return init(tmp_path / "ws")


def _add(workspace: Workspace, name: str, rows: list[object], note: str = "") -> Path:
    path = workspace.root.parent / f"{name}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    # Long ago, so that its stat alone proves that it has not changed.
    os.utime(path, (1_700_000_000, 1_700_000_000))
    add_dataset(workspace, path, name, note=note)
    return path


def _pairs(count: int) -> list[object]:
    return [
        {
            "prompt": f"My rear wheel wobbles since I changed tyre {n}. What should I check first?",
            "chosen": "Check that the tyre bead sits evenly all round: spin the wheel and look for a spot where the "
            "line on the sidewall dips below the rim.",
            "rejected": f"Wheels wobble for {n} reasons.",
            "source": "forum" if n % 7 else "manual",
        }
        for n in range(count)
    ]


def _screen(app: WorkbenchApp) -> Inspect:
    assert isinstance(app.screen, Inspect)
    return app.screen


def _grid(app: WorkbenchApp) -> Grid:
    return app.screen.query_one(Grid)


def _row_text(app: WorkbenchApp) -> str:
    return app.screen.query_one(RowView).text


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_rows_and_one_row(workspace: Workspace, size: tuple[int, int]) -> None:
    _add(workspace, "support", _pairs(1000))

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "support · 1,000 rows · 4 columns")
        if size == WIDE:
            await until(pilot, lambda: "Wheels wobble for 0 reasons." in _row_text(app))
        await check_golden("inspect-grid", pilot)
        await pilot.press("j", "j", "enter")
        await until(pilot, lambda: "Wheels wobble for 2 reasons." in _row_text(app))
        assert app.focused is app.screen.query_one(RowView)
        await check_golden("inspect-row", pilot)
        await pilot.press("n")
        await until(pilot, lambda: "line 4 " in _row_text(app))
        await pilot.press("N", "r")
        await until(pilot, lambda: '"rejected": "Wheels wobble for 2 reasons."' in _row_text(app))
        await pilot.press("escape")
        assert app.focused is _grid(app)
        assert _grid(app).row_number == 2

    drive(script, workspace, size=size, station="inspect", subject="support")


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_what_the_data_is_stands_in_the_header_at_any_width(workspace: Workspace, size: tuple[int, int]) -> None:
    _add(workspace, "answers-of-the-second-quarter", _pairs(1000), note="synthetic")

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "answers-of-the-second-quarter · synthetic · 1,000")

    drive(script, workspace, size=size, station="inspect", subject="answers-of-the-second-quarter")


def test_a_filter_shows_its_rows_alone_and_esc_gives_all_back(workspace: Workspace) -> None:
    _add(workspace, "support", _pairs(1000))

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "1,000 rows")
        await pilot.press("slash", *"MANUAL", "enter")
        await sees(pilot, '143 rows contain "MANUAL" · of 1,000 rows')
        assert _grid(app).total == 143
        await check_golden("inspect-filter", pilot)
        await pilot.press("G")
        assert _grid(app).row_number == 994
        await pilot.press("k", "enter", "n")
        await until(pilot, lambda: "line 995 " in _row_text(app))
        await pilot.press("escape")
        assert _grid(app).total == 143
        await pilot.press("escape")
        await until(pilot, lambda: _grid(app).total == 1000)
        assert _grid(app).row_number == 994
        assert isinstance(app.screen, Inspect)

    drive(script, workspace, station="inspect", subject="support")


def test_a_filter_without_hits_and_one_that_is_typed_over(workspace: Workspace) -> None:
    _add(workspace, "support", _pairs(50))

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "50 rows")
        await pilot.press("slash", *"nowhere")
        await sees(pilot, '0 rows contain "nowhere"')
        await sees(pilot, "no row contains it")
        for _ in "nowhere":
            await pilot.press("backspace")
        await pilot.press(*"tyre 7.")
        await sees(pilot, '1 row contains "tyre 7."')
        await pilot.press("escape")
        await until(pilot, lambda: _grid(app).total == 50)

    drive(script, workspace, station="inspect", subject="support")


def test_a_conversation_has_its_roles_and_a_refused_row_its_reason(workspace: Workspace) -> None:
    turns = [
        {"role": "system", "content": "You mend bicycles."},
        {"role": "user", "content": "It rattles."},
        {"role": "assistant", "content": "Tighten it."},
    ]
    _add(workspace, "chats", [{"messages": turns}, {"messages": []}, {"messages": turns}])

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "3 rows")
        await pilot.press("enter")
        await until(pilot, lambda: "assistant\n  Tighten it." in _row_text(app))
        assert "system\n  You mend bicycles." in _row_text(app)
        await pilot.press("n")
        await until(pilot, lambda: "✗ not used:" in _row_text(app))

    drive(script, workspace, station="inspect", subject="chats")


def test_a_preference_set_has_two_sides(workspace: Workspace) -> None:
    folder = workspace.prefs / "judged"
    folder.mkdir()
    row = {"id": "a", "prompt": [{"role": "user", "content": "P"}], "chosen": "good", "rejected": "bad", "tags": {}}
    (folder / "train.jsonl").write_bytes(orjson.dumps(row) + b"\n")
    (folder / "eval.jsonl").write_bytes(b"")

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "judged · train · 1 row ")
        await pilot.press("enter")
        await until(pilot, lambda: "good" in _row_text(app))
        await pilot.press("escape", "t")
        await sees(pilot, "judged · eval · 0 rows")
        await sees(pilot, "no rows")

    drive(script, workspace, station="inspect", subject="judged")


def test_copying_a_cell(workspace: Workspace) -> None:
    _add(workspace, "long", [{"text": "x" * 300_000, "k": None}])
    copied: list[str] = []

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        app.copy_to_clipboard = copied.append  # type: ignore[method-assign]
        await sees(pilot, "long · 1 row ")
        await pilot.press("y")
        await sees(pilot, "copied 100,000 characters of text, the first of 300,000")
        assert copied == ["x" * 100_000]
        await pilot.press("l", "y")
        await sees(pilot, "nothing is copied")

    drive(script, workspace, station="inspect", subject="long")


class _EndsBetweenTwoLooks(JsonLinesWindow):
    """Knows five rows at the first look at whether it is complete, and all of them right after it."""

    looks = 0

    @property
    def complete(self) -> bool:
        self.looks += 1
        return self.looks > 1

    @property
    def rows_so_far(self) -> int:
        return min(super().rows_so_far, 5 if self.looks < 2 else 7)


def test_an_index_that_ends_while_its_first_rows_are_drawn_is_shown_whole(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(workspace, "seven", _pairs(7))
    monkeypatch.setattr("workbench.row_opening.open_window", lambda path, kind: _EndsBetweenTwoLooks(path))

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "seven · 7 rows")
        await pilot.press("G")
        await sees(pilot, "▸  7")

    drive(script, workspace, station="inspect", subject="seven")


HOSTILE = (
    "\x1b]0;title\x07\x1b[2J", "[/nope][red]", "a\u202eb", "zero\u200bwidth", "\x9b31m", "x" * 1_000_000, "日本語" * 50,
)  # fmt: skip


def test_nothing_raw_of_a_row_reaches_the_screen(workspace: Workspace) -> None:
    _add(workspace, "hostile", [{"prompt": text, "completion": text, "\x1b[31mname": text} for text in HOSTILE])

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "7 rows")
        for number in range(len(HOSTILE)):
            await until(pilot, lambda n=number: f"line {n + 1} " in _row_text(app))  # type: ignore[misc]
            for raw in (False, True):
                shown = text_of(app)
                assert all(safe(line) == line for line in shown.splitlines()), raw
                await pilot.press("r")
            await pilot.press("j")

    drive(script, workspace, size=(160, 48), station="inspect", subject="hostile")


def test_a_dataset_deleted_while_open(workspace: Workspace) -> None:
    path = _add(workspace, "support", _pairs(3000))

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "3,000 rows")
        await until(pilot, lambda: not _grid(app).waiting)
        path.unlink()
        await pilot.press("G")
        await sees(pilot, "is not there (any more)")
        await pilot.press("enter")
        await until(pilot, lambda: "is not there" in _row_text(app))
        await pilot.press("escape", "g", "slash", "x", "enter")
        await pilot.pause(0.3)
        assert "What should I" in text_of(app) or "no row contains" in text_of(app)
        await pilot.press("escape", "q")
        assert not isinstance(app.screen, Inspect)

    drive(script, workspace, station="inspect", subject="support")


def test_a_dataset_that_is_gone_or_unknown(workspace: Workspace) -> None:
    path = _add(workspace, "support", _pairs(3))
    path.unlink()

    async def gone(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "cannot be read")

    async def unknown(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "no dataset named other")
        await pilot.press("j", "enter", "r", "y", "t", "n", "slash", "x", "enter", "escape")

    drive(gone, workspace, station="inspect", subject="support")
    drive(unknown, workspace, station="inspect", subject="other")


def test_an_empty_workspace_says_what_to_do(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "no dataset yet")

    drive(script, workspace, station="inspect")


def test_a_gzipped_file_shows_rows_at_once_and_then_all(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(orjson.dumps({"text": f"row {n}"}) + b"\n" for n in range(20_000)), 1))
    add_dataset(workspace, path, "many")

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "many · 20,000 rows")
        await pilot.press("G")
        await sees(pilot, "▸20,000 row 19999")

    drive(script, workspace, station="inspect", subject="many")


def test_resized_and_too_small_in_the_middle_of_reading(workspace: Workspace) -> None:
    _add(workspace, "support", _pairs(100))

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "100 rows")
        await pilot.press("j", "enter")
        await pilot.resize_terminal(160, 48)
        await until(pilot, lambda: _grid(app).display and "line 2 " in _row_text(app))
        await pilot.resize_terminal(40, 10)
        await sees(pilot, "too small")
        await pilot.press("j", "n")
        assert _grid(app).row_number == 1
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "line 2 " in text_of(app))

    drive(script, workspace, station="inspect", subject="support")


def test_a_step_beside_the_grid_draws_only_the_lines_that_change(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(workspace, "support", _pairs(100))
    drawn: list[tuple[object, ...]] = []
    refresh = RowView.refresh

    def note(view: RowView, *regions: Region, **how: bool) -> RowView:
        drawn.append((*regions, *how))
        return refresh(view, *regions, **how)

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await until(pilot, lambda: "line 1 " in _row_text(app))
        await pilot.pause()
        monkeypatch.setattr(RowView, "refresh", note)
        await pilot.press("j")
        await until(pilot, lambda: "line 2 " in _row_text(app))
        await until(pilot, lambda: "wobble for 1 reasons" in text_of(app))
        assert {region.height for (region,) in drawn} == {1}
        assert len(drawn) < 8

    drive(script, workspace, size=WIDE, station="inspect", subject="support")


def test_a_parquet_dataset_opens_without_being_read(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    duckdb.execute(f"COPY (SELECT 'text ' || i AS text FROM range(130000) t(i)) TO '{path}' (FORMAT parquet)")
    add_dataset(workspace, path, "p")

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "p · 130,000 rows")
        await pilot.press("slash", *"129999", "enter")
        await sees(pilot, '1 row contains "129999" · of 130,000 rows')
        await sees(pilot, "▸130,000 text 129999")

    drive(script, workspace, station="inspect", subject="p")


@pytest.mark.slow
def test_a_file_that_crashes_its_parser_is_told_and_the_app_goes_on(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.parquet"
    write = f"COPY (SELECT '{{}}' AS text) TO '{path}' (FORMAT parquet, COMPRESSION uncompressed)"
    duckdb.execute(write.format("fine"))
    add_dataset(workspace, path, "p")
    duckdb.execute(write.format(crashing_parser.MARK))
    monkeypatch.setattr("workbench.file_trial.PROGRAM", crashing_parser.__name__)

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "was ended by SIGSEGV")
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Inspect))

    assert drive(script, workspace, station="inspect", subject="p").crash is None


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_a_row_as_the_model_sees_it(workspace: Workspace, size: tuple[int, int]) -> None:
    _add(workspace, "support", _pairs(3))

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "3 rows")
        await pilot.press("enter", "m")
        await until(pilot, lambda: "as sample sees it" in _row_text(app))
        assert "⟦<|im_end|>⟧" in _row_text(app)
        await pilot.press("o")
        await until(pilot, lambda: bool(app.screen.query("#answer")))
        app.screen.query_one("#answer").value = "sample max_length=90 train_on=all"  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: "cut at max_length 90" in _row_text(app))
        await check_golden("inspect-tokens", pilot)
        await pilot.press("n")
        await until(pilot, lambda: "line 2 · as sample sees it" in _row_text(app))
        await pilot.press("m", "d")
        await until(pilot, lambda: "line 2 · as it is trained on" in _row_text(app))
        assert "words that only one has" not in _row_text(app)
        child = _screen(app)._showing._reader._child
        app.back()
        await until(pilot, lambda: child is not None and child.poll() is not None)

    drive(script, workspace, size=size, station="inspect", subject="support")


def test_a_chat_with_tools_reads_with_its_roles_and_styles(workspace: Workspace) -> None:
    call = {"function": {"name": "look_up", "arguments": {"part": "bead"}}}
    turns = [
        {"role": "system", "content": "You mend bikes."},
        {"role": "user", "content": "# Wheel\n\nUse `code` and **care**."},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", **call}]},
        {"role": "tool", "content": '{"stock": 3}', "name": "look_up"},
        {"role": "assistant", "content": "```\nmend()\n```"},
    ]
    _add(workspace, "chats", [{"messages": turns}])

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "1 row")
        await pilot.press("enter")
        await until(pilot, lambda: "mend()" in _row_text(app))
        for words in ("system", "You mend bikes.", "look_up", '"stock": 3', "tool", "# Wheel"):
            assert words in _row_text(app)
        styles = {names for line in app.screen.query_one(RowView)._pieces for _, names in line}
        assert {"heading", "code", "strong", "title"} <= styles
        await check_golden("inspect-chat", pilot)

    drive(script, workspace, station="inspect", subject="chats")


def test_a_line_filters_and_sorts_and_a_number_leads_to_its_row(workspace: Workspace) -> None:
    _add(workspace, "support", _pairs(1000))

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "1,000 rows")
        await pilot.press("slash")
        app.screen.query_one("#filter").value = "source = manual sort -prompt"  # type: ignore[attr-defined]
        await pilot.press("enter")
        await sees(pilot, '143 rows with "source = manual sort -prompt" · of 1,000 rows')
        assert _grid(app).row_number == 994
        await check_golden("inspect-sorted", pilot)
        await pilot.press("s")
        await sees(pilot, '143 rows with "source = manual"')
        await pilot.press("number_sign", *"995", "enter")
        await until(pilot, lambda: _grid(app).row_number == 994)
        await pilot.press("number_sign", *"2", "enter")
        await sees(pilot, "row 2 is not among those")
        await pilot.press("escape", "number_sign", *"2", "enter")
        await until(pilot, lambda: _grid(app).row_number == 1)

    drive(script, workspace, station="inspect", subject="support")
