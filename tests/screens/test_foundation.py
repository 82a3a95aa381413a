"""What every screen is made of: lists, texts, questions, tasks, the key line, the last door, wrapping, settings."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from rich.cells import cell_len
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Input

import screens.stations
from engine.run.safe_text import safe
from screens.key_line import shown_keys
from screens.line import Line
from screens.modals import AskText, Choice, Question, Reading
from screens.row_list import Column, Row, RowList
from screens.station import Station
from screens.tasks import Cancelled, Task
from screens.terminal_door import TerminalDoor
from screens.text_view import Block, TextView
from tests.any_text import ANY_TEXT
from tests.screens.driving import SIZE, WIDE, check_golden, drive, text_of, until
from workbench.ascii_text import lacks_utf8, to_ascii
from workbench.errors import WorkbenchError
from workbench.user_settings import UserSettings, change_setting, read_settings, settings_path
from workbench.workspace import Workspace, init

BLACK = Color(0, 0, 0)
ROWS = [
    Row(f"key-{n}", (f"name {n}", f"{n * 1000:,}", "a remark that is longer than the room it gets " * (n % 2), "late"),
        tone=("good", "bad", "busy", "faint", "")[n % 5])
    for n in range(30)
]  # fmt: skip


class Bench(Station):
    """A station with one of everything."""

    NAME = "home"
    TITLE = "bench"
    HELP = "A place to try things."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter", id="bench.filter", tooltip="Keep some."),
        *(
            Binding(key, f"noted('{key}')", f"a rather long word {key}", id=f"bench.{key}", tooltip="Nothing.")
            for key in "abcdef"
        ),
        Binding("t", "app.bell", "ring", id="bench.ring", tooltip="Ring."),
    ]

    def compose_body(self) -> Iterable[Widget]:
        yield RowList(
            [
                Column("name"),
                Column("rows", right=True, longest=8),
                Column("remark", flexible=True),
                Column("late", drop=1),
            ],
            empty="nothing yet; a adds one",
            id="rows",
        )
        yield TextView(id="text", follow=True)

    def action_noted(self, key: str) -> None:
        """A key that is only there to be named."""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose Home is the bench."""
    monkeypatch.setitem(screens.stations.STATIONS, "home", screens.stations.Place(__name__, "Bench", "tries"))
    monkeypatch.setattr("screens.app.import_module", lambda name: __import__("sys").modules[name])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return init(tmp_path / "ws")


def rows_of(app: Any) -> RowList:
    return app.screen.query_one("#rows", RowList)


class TestRowList:
    def test_keys_move_the_cursor_and_it_stays_in_sight(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            rows = rows_of(app)
            rows.show(ROWS)
            assert rows.key == "key-0"
            for key, expected in (("j", 1), ("k", 0), ("k", 0), ("G", 29), ("j", 29), ("g", 0)):
                await pilot.press(key)
                await pilot.pause()
                assert rows.key == f"key-{expected}", key
                assert f"▸name {expected} " in text_of(app)
            await pilot.press("ctrl+d")
            assert int(rows.key.removeprefix("key-")) > 1
            wide = rows.render_line(0).text
            rows._fit(0)  # as when it is filled while it is hidden
            assert rows.render_line(0).text == wide, "the first line that is drawn is laid out for the room there is"

        drive(script, bench)

    def test_the_cursor_stays_on_its_key_when_rows_are_replaced(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            rows = rows_of(app)
            rows.show(ROWS)
            rows.move_to("key-7")
            rows.show(ROWS[5:])
            assert rows.key == "key-7"
            rows.show(ROWS[:3])
            assert rows.key == "key-2", "the nearest that is left"
            rows.show([])
            assert rows.key == ""
            await until(pilot, lambda: "nothing yet; a adds one" in text_of(app))

        drive(script, bench)

    def test_the_filter_keeps_what_matches_and_ends_by_escape(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            rows = rows_of(app)
            rows.show(ROWS)
            await pilot.press("slash", *"NAME 2")
            await until(
                pilot, lambda: [row.key for row in rows.rows] == ["key-2", *(f"key-{n}" for n in range(20, 30))]
            )
            await pilot.press(*"zz")
            await until(pilot, lambda: "nothing here matches the filter" in text_of(app))
            await pilot.press("escape")
            await until(pilot, lambda: len(rows.rows) == 30)
            assert not app.screen.query("#filter")
            assert rows.has_focus

        drive(script, bench)

    def test_enter_opens_and_moves_are_told(self, bench: Workspace) -> None:
        told: list[tuple[str, str]] = []

        class Listening(Bench):
            def on_row_list_moved(self, event: RowList.Moved) -> None:
                told.append((type(event).__name__, event.key))

            def on_row_list_opened(self, event: RowList.Opened) -> None:
                told.append((type(event).__name__, event.key))

        async def script(app: Any, pilot: Pilot[int]) -> None:
            await app.push_screen(Listening())
            rows_of(app).show(ROWS)
            await pilot.press("j", "enter")
            await until(pilot, lambda: ("Opened", "key-1") in told)
            assert ("Moved", "key-1") in told

        drive(script, bench)

    def test_a_cell_of_a_megabyte_costs_no_more_than_a_short_one(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            rows_of(app).show([Row("1", ("x" * 10**6, "1", "\x1b[2J" + "y" * 10**6, ""))])
            await until(pilot, lambda: "␛[2Jyyy" in text_of(app))

        drive(script, bench)

    @pytest.mark.parametrize("size", [SIZE, WIDE])
    def test_its_picture(self, bench: Workspace, size: tuple[int, int]) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            rows_of(app).show(ROWS)
            await pilot.press("j", "j")
            await pilot.pause()
            await check_golden("foundation-list", pilot)

        drive(script, bench, size=size)

    def test_a_column_is_dropped_where_there_is_no_room(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            wide = [Row("1", ("n" * 40, "12345678", "remark", "late"))]
            rows_of(app).show(wide)
            await until(pilot, lambda: "remark" in text_of(app))
            assert "late" in text_of(app)
            await pilot.resize_terminal(60, 20)
            await until(pilot, lambda: "late" not in text_of(app))
            assert "12345678" in text_of(app)

        drive(script, bench)


class TestTextView:
    def test_it_wraps_and_scrolls(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            view = app.screen.query_one(TextView)
            view.show([Block("title", "title"), Block("word " * 400, indent=2), Block("the end")])
            view.focus()
            await pilot.press("g")
            await until(pilot, lambda: "title" in text_of(app))
            assert all(cell_len(line) <= 80 for line in view.text.split("\n"))
            await pilot.press("G")
            await until(pilot, lambda: "the end" in text_of(app))
            await pilot.press("g", "j")
            await until(pilot, lambda: view.scroll_offset.y == 1)

        drive(script, bench)

    def test_it_follows_its_end_only_while_it_is_there(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            view = app.screen.query_one(TextView)
            lines = [f"line {n}" for n in range(100)]
            view.show([Block("\n".join(lines))])
            await pilot.pause()
            view.focus()
            await pilot.press("G")
            view.show([Block("\n".join([*lines, "newest"]))])
            await until(pilot, lambda: "newest" in text_of(app))
            await pilot.press("g")
            view.show([Block("\n".join([*lines, "newest", "newer still"]))])
            await pilot.pause()
            assert view.scroll_offset.y == 0

        drive(script, bench)


class TestQuestions:
    def ask(self, bench: Workspace, modal: Any, *keys: str) -> list[Any]:
        answers: list[Any] = []

        async def script(app: Any, pilot: Pilot[int]) -> None:
            app.push_screen(modal, answers.append)
            await pilot.pause()
            for key in keys:
                await pilot.press(key)
                await pilot.pause()

        drive(script, bench)
        return answers

    def test_a_choice_is_one_key(self, bench: Workspace) -> None:
        choices = [Choice("D", "delete it", "delete"), Choice("k", "keep it")]
        assert self.ask(bench, Question("Delete?", choices), "x", "D") == ["delete"]
        assert self.ask(bench, Question("Delete?", choices), "k") == ["k"]
        assert self.ask(bench, Question("Delete?", choices), "d", "escape") == [None]

    def test_a_text_is_checked_before_it_is_taken(self, bench: Workspace) -> None:
        def check(text: str) -> str:
            return "" if text == "good" else "not that"

        assert self.ask(bench, AskText("Name?", check=check), *"bad", "enter") == []
        assert self.ask(bench, AskText("Name?", check=check), *"good", "enter") == ["good"]
        assert self.ask(bench, AskText("Name?"), "escape") == [None]

    @pytest.mark.parametrize("size", [SIZE, WIDE])
    def test_their_pictures(self, bench: Workspace, size: tuple[int, int]) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            choices = [Choice("D", "delete it with its checkpoints"), Choice("k", "keep it")]
            app.push_screen(Question("Delete the run?", choices, details="It has 4 checkpoints. " * 5))
            await pilot.pause()
            await check_golden("foundation-question", pilot)
            await pilot.press("escape")
            app.push_screen(AskText("A comment on this pair?", value="too long", check=lambda _: "say more"))
            await pilot.pause()
            await pilot.press("enter")
            await pilot.pause()
            await check_golden("foundation-ask-text", pilot)
            await pilot.press("escape")
            app.push_screen(Reading([Block("What went wrong", "title"), Block("word " * 100, indent=2)]))
            await pilot.pause()
            await check_golden("foundation-reading", pilot)

        drive(script, bench, size=size)


class TestTasks:
    def test_progress_is_shown_and_the_result_arrives(self, bench: Workspace) -> None:
        go_on, results = threading.Event(), []

        def work(task: Task) -> int:
            task.report(1, 4, "rows")
            assert go_on.wait(20)
            return 7

        async def script(app: Any, pilot: Pilot[int]) -> None:
            app.screen.start_task("counting", work, results.append)
            await until(pilot, lambda: "counting · rows · 25 %" in text_of(app))
            assert "esc cancels" in text_of(app)
            app.screen.start_task("another", work)
            await until(pilot, lambda: "still counting" in text_of(app))
            go_on.set()
            await until(pilot, lambda: results == [7])
            await until(pilot, lambda: "counting" not in text_of(app))

        drive(script, bench)

    def test_escape_cancels_and_stays(self, bench: Workspace) -> None:
        ended: list[str] = []

        def work(task: Task) -> None:
            try:
                while True:
                    task.report(1)
                    threading.Event().wait(0.01)
            except Cancelled:
                ended.append("cancelled")
                raise

        async def script(app: Any, pilot: Pilot[int]) -> None:
            app.screen.start_task("endless work", work, ended.append)
            await pilot.pause()
            await pilot.press("escape")
            await until(pilot, lambda: "cancelled: endless work" in text_of(app))
            assert ended == ["cancelled"]
            assert isinstance(app.screen, Bench)

        drive(script, bench)

    def test_an_error_is_told_and_the_next_task_may_begin(self, bench: Workspace) -> None:
        def work(task: Task) -> None:
            raise WorkbenchError("the file [/nope] is \x1b[2J gone")

        async def script(app: Any, pilot: Pilot[int]) -> None:
            app.screen.start_task("reading", work)
            await until(pilot, lambda: "the file [/nope] is ␛[2J gone" in text_of(app))
            failures: list[BaseException] = []
            app.screen.start_task("reading", work, failed=failures.append)
            await until(pilot, lambda: len(failures) == 1)

        drive(script, bench)


class TestSmallTerminal:
    def test_it_says_so_takes_no_keys_and_gives_the_focus_back(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            rows_of(app).show(ROWS)
            await pilot.press("j")
            await pilot.resize_terminal(40, 10)
            await until(pilot, lambda: "40x10 is too small; 60x16 is enough" in text_of(app))
            await pilot.press("j", "slash")
            await pilot.resize_terminal(80, 24)
            await until(pilot, lambda: "▸name 1 " in text_of(app))
            assert rows_of(app).has_focus
            assert not app.screen.query("#filter")

        drive(script, bench)


class TestKeyLine:
    @pytest.mark.parametrize("width", [60, 80, 160])
    def test_it_fits_and_always_names_help_and_back(self, bench: Workspace, width: int) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            await pilot.pause()
            last = text_of(app).splitlines()[-1]
            assert cell_len(last) <= width
            assert "? keys" in last
            assert "q back" in last
            assert ("word e" in last) == (width == 160)

        drive(script, bench, size=(width, 24))

    def test_every_key_of_a_person_has_a_name_and_a_sentence(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            assert {"bench.filter", "help", "back"} <= {one[0] for one in shown_keys(app.screen)}

        drive(script, bench)


class TestLastDoor:
    @given(ANY_TEXT)
    def test_nothing_unsafe_comes_out(self, text: str) -> None:
        passed = TerminalDoor().apply([Segment(text)], BLACK)[0].text
        assert safe(passed) == passed

    @given(ANY_TEXT)
    def test_safe_text_passes_unchanged(self, text: str) -> None:
        assert TerminalDoor().apply([Segment(safe(text))], BLACK)[0].text == safe(text)

    @given(ANY_TEXT)
    def test_in_ascii_every_character_is_as_wide_as_it_was(self, text: str) -> None:
        passed = TerminalDoor(ascii_only=True).apply([Segment(safe(text))], BLACK)[0].text
        assert passed.isascii()
        assert len(passed) == sum(map(cell_len, safe(text)))

    def test_the_drawing_characters_have_stand_ins_that_can_be_told_apart(self) -> None:
        assert to_ascii("▸ ● ✓ ✗ ▲ ─ │ … ⣿⠀") == "> # + x ^ - | $ * "

    @pytest.mark.parametrize(
        ("environment", "lacks"),
        [
            ({}, False),
            ({"LANG": "C.UTF-8"}, False),
            ({"LANG": "de_DE.utf8"}, False),
            ({"LANG": "de_DE.ISO-8859-1"}, True),
            ({"LANG": "C"}, True),
            ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
            ({"LC_CTYPE": "UTF-8"}, False),
            ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, True),
            ({"LANG": "C", "LC_ALL": "en_US.UTF-8"}, False),
            ({"LANG": "en_US.UTF-8", "TERM": "linux"}, True),
        ],
    )
    def test_what_a_terminal_lacks_is_read_from_its_environment(self, environment: dict[str, str], lacks: bool) -> None:
        assert lacks_utf8(environment) is lacks


class TestSettings:
    def test_a_damaged_file_is_told_with_its_name(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        for content in (b"theme = [", b"\xff\xfe", b"theme = 3", b"keys = 3", b'[keys]\n"label.tie" = 3'):
            path.write_bytes(content)
            with pytest.raises(WorkbenchError, match=r"config\.toml"):
                read_settings(path)

    def test_a_change_keeps_what_else_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "config.toml"
        change_setting("theme", "workbench-light", path)
        change_setting("annotator", "alice", path)
        assert read_settings(path) == UserSettings("workbench-light", "alice", {})

    def test_without_a_file_there_are_defaults(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        assert settings_path() == tmp_path / "workbench" / "config.toml"
        assert read_settings() == UserSettings()
        assert read_settings().annotator_name

    def test_keys_are_bound_anew(self, bench: Workspace) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            await pilot.press("slash")
            assert not app.screen.query("#filter")
            await pilot.press("F")
            await until(pilot, lambda: bool(app.screen.query("#filter")))
            assert isinstance(app.screen.focused, Input)

        drive(script, bench, settings=UserSettings(keys={"bench.filter": "F"}))

    @pytest.mark.parametrize("theme", ["workbench-light", "workbench-colour-blind", "no-such-theme"])
    def test_a_theme_is_taken_where_there_is_one(self, bench: Workspace, theme: str) -> None:
        async def script(app: Any, pilot: Pilot[int]) -> None:
            assert app.theme == (theme if theme != "no-such-theme" else "workbench-dark")
            if theme == "no-such-theme":
                await until(pilot, lambda: "no-such-theme" in text_of(app))

        drive(script, bench, settings=UserSettings(theme=theme))


def test_a_line_sends_nothing_where_it_says_what_it_said() -> None:
    """`Line.show` is called by readers several times a second."""
    updates: list[object] = []

    class Counting(Line):
        def update(self, content: object = "", *, layout: bool = True) -> None:
            updates.append(content)

    line = Counting("a")
    line.show("a")
    assert updates == []
    line.show("b")
    assert len(updates) == 1
