"""Adding a dataset by keys: the preview, what is wrong beside its field, and what then lies in the workspace."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from textual.widgets import Input

from engine.run.safe_text import safe
from screens.add_dataset import AddDataset, RowsView
from screens.app import WorkbenchApp
from screens.inspect import Inspect
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from workbench.dataset_store import add_dataset, open_dataset
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return init(tmp_path / "ws")


def _file(name: str, rows: list[object]) -> str:
    Path(name).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return name


def _questions(count: int = 40) -> list[object]:
    return [{"question": f"Why does wheel {n} wobble?", "answer": f"Look at bead {n} first."} for n in range(count)]


def _rows(app: WorkbenchApp) -> str:
    return app.screen.query_one(RowsView).text


def _value(app: WorkbenchApp, field: str) -> str:
    return app.screen.query_one(f"#{field}", Input).value


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_a_file_is_seen_and_then_added(workspace: Workspace, size: tuple[int, int]) -> None:
    _file("questions.jsonl", _questions())

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await check_golden("add-empty", pilot)
        await pilot.press(*"ques", "tab")
        assert _value(app, "source") == "questions.jsonl"
        await sees(pilot, "✓ prompt-completion: prompt <- question, completion <- answer")
        await sees(pilot, "✓ free")
        assert _value(app, "name") == "questions"
        assert "Look at bead 0 first." in _rows(app)
        if size == SIZE:  # the scrollbar gets its place a layout after the text
            await sees(pilot, "▇")
        await check_golden("add-preview", pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Inspect))
        await sees(pilot, "questions · 40 rows")

    drive(script, workspace, size=size, station="add")
    assert open_dataset(workspace, "questions").info.rows == 40


def test_a_file_that_fits_nothing_is_added_by_a_mapping(workspace: Workspace) -> None:
    _file("odd.jsonl", [{"body": f"text {n}", "score": n} for n in range(9)])

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "✗ the rows do not fit any known shape")
        assert _rows(app).endswith("body: text\nscore: a number")
        await check_golden("add-unrecognised", pilot)
        await pilot.press("enter")
        await sees(pilot, "say which column is what")
        assert app.focused is app.screen.query_one("#mapping")
        await pilot.press(*"text=bdy")
        await sees(pilot, "no column of that name")
        await pilot.press("backspace", "backspace", "backspace", *"body", "enter")
        await until(pilot, lambda: isinstance(app.screen, Inspect))

    drive(script, workspace, station="add", subject="odd.jsonl")
    assert open_dataset(workspace, "odd").info.recognition.mapping == {"text": "body"}


def test_a_name_that_is_taken_is_told_under_the_name(workspace: Workspace) -> None:
    path = _file("questions.jsonl", _questions())
    add_dataset(workspace, path)

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "✗ the name questions is taken")
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is app.screen.query_one("#name"))
        await pilot.press("end", "2", "enter")
        await until(pilot, lambda: isinstance(app.screen, Inspect))

    drive(script, workspace, station="add", subject=path)
    assert workspace.names("datasets") == ["questions", "questions2"]


def test_a_file_that_cannot_be_read_is_told_under_the_file(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await pilot.press("enter")
        await sees(pilot, "name a file first")
        await pilot.press(*"none.jsonl")
        await sees(pilot, "none.jsonl does not exist")
        await pilot.press("enter")
        await sees(pilot, "this file cannot be added")
        await pilot.press("escape")
        assert not isinstance(app.screen, AddDataset)

    drive(script, workspace, station="add")
    assert workspace.names("datasets") == []


def test_enter_at_once_waits_for_the_preview_of_what_was_typed(workspace: Workspace) -> None:
    _file("a.jsonl", _questions())

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await pilot.press(*"a.jsonl", "enter")
        await until(pilot, lambda: isinstance(app.screen, Inspect))

    drive(script, workspace, station="add")
    assert workspace.names("datasets") == ["a"]


def test_cancelled_while_it_is_read_nothing_is_left(workspace: Workspace) -> None:
    path = _file("large.jsonl", _questions(150_000))

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "✓ free")
        # In one breath, since the whole file is read in the time that a test takes to press a second key.
        app.screen.action_add()  # type: ignore[attr-defined]
        app.screen.action_back()  # type: ignore[attr-defined]
        await sees(pilot, "cancelled: adding large")
        assert isinstance(app.screen, AddDataset)

    drive(script, workspace, station="add", subject=path)
    assert workspace.names("datasets") == []
    assert list(workspace.datasets.iterdir()) == []


def test_a_read_only_workspace_refuses_and_says_why(workspace: Workspace) -> None:
    path = _file("a.jsonl", _questions())
    closed = Workspace(workspace.root, workspace.id, workspace.schema, "it is locked for a test.")

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "✓ free")
        await pilot.press("enter")
        await sees(pilot, "it is locked for a test")
        assert isinstance(app.screen, AddDataset)

    drive(script, closed, station="add", subject=path)


def test_nothing_raw_of_a_file_reaches_the_screen(workspace: Workspace) -> None:
    bad = "\x1b]0;title\x07[/nope]\u202e\x9b31m"
    Path("x\x1b[31m[nope]").mkdir()
    Path("x\x1b[31m[nope]", "a.jsonl").touch()
    path = _file("bad.jsonl", [{"prompt": bad, "completion": bad, bad: bad}, {bad: bad}])

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        def clean() -> bool:
            return all(safe(line) == line for line in text_of(app).splitlines())

        await sees(pilot, "✓ free")
        assert clean()
        assert "␛]0;title" in _rows(app)
        app.screen.query_one("#source", Input).value = "x"
        await pilot.press("end", "tab")
        await until(pilot, lambda: _value(app, "source").endswith("/"))
        await sees(pilot, "is a folder")
        strips = app.screen._compositor.render_strips(app.size)
        shown = "".join(app._door.apply([part], app.theme_variables)[0].text for strip in strips for part in strip)  # type: ignore[arg-type]
        assert safe(shown) == shown

    drive(script, workspace, station="add", subject=path)
