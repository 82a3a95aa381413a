"""A program for a pseudo-terminal that shows one widget of the foundation at a time, full of hostile text.

    python tests/screens/widget_show.py WORKSPACE

A key opens a widget; see WIDGETS. The text of each comes from the corpus, by the widget's name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

import screens.stations
from screens.line import Line
from screens.modals import AskText, Choice, Question, Reading
from screens.row_list import Column, Row, RowList
from screens.station import Station
from screens.text_view import Block, TextView
from tests.screens.hostile_corpus import Corpus
from workbench.errors import WorkbenchError
from workbench.workspace import open_workspace

WIDGETS = {
    "line": "1", "list": "2", "text": "3", "message": "4", "header": "5", "key line": "6", "question": "7",
    "ask text": "8", "reading": "9", "too small": "0", "task": "a", "toast": "b", "error toast": "c", "fault": "d",
    "field": "e",  # it takes the keys, so it is the last
}  # fmt: skip
CORPUS = Corpus()
for _name in WIDGETS:
    CORPUS.said(_name)
said = CORPUS.said


class WidgetShow(Station):
    """One widget at a time."""

    NAME = "home"
    TITLE = "show"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, f"display({name!r})", "", show=False) for name, key in WIDGETS.items()),
        Binding("x", "nothing", said("key line")[:24], id="show.hostile", tooltip=said("key line")),
    ]

    def compose_body(self) -> Iterable[Widget]:
        yield Widget(id="place")

    def action_display(self, name: str) -> None:
        text = said(name)
        widget: Widget | None = None
        if name == "line":
            widget = Line(text, (text, "bold"))
        elif name == "list":
            rows = RowList([Column(text), Column("b", flexible=True), Column("c", right=True)], empty=text)
            rows.show([Row("1", (text, text, text)), Row("2", ("", "word " + text, "x" * 10**6 + text))])
            widget = rows
        elif name == "text":
            widget = TextView([Block(text, "title"), Block("a word\n" + text, indent=2), Block("x" * 10**6 + text)])
        elif name == "field":
            widget = Input(text + text[:4], placeholder=text)  # its cursor, and what is shown, is at the end
        elif name == "message":
            self.say(text, "bad")
        elif name == "header":
            self.say_where(text)
        elif name == "question":
            self.app.push_screen(Question(text, [Choice("1", text), Choice("2", "other")], details=text))
        elif name == "ask text":
            self.app.push_screen(AskText(text, value=text + text[:4], placeholder=text, check=lambda _: text))
        elif name == "reading":
            self.app.push_screen(Reading([Block(text), Block("x" * 10**6 + text)]))
        elif name == "toast":
            self.workbench_app.tell(text, "warning")
        elif name == "error toast":
            self.complain(WorkbenchError(text))
        elif name == "fault":
            self.complain(ValueError(text))
        elif name == "task":
            self.start_task(text, lambda task: task.report(1, 2, text) or _raise(text))
        if widget is not None:
            body = self.query_one("#body")
            body.remove_children()
            body.mount(widget)
            if widget.can_focus and name != "field":
                self.call_after_refresh(widget.focus)


def _raise(text: str) -> None:
    import time

    time.sleep(0.6)  # longer than it takes until progress is shown
    raise WorkbenchError(text)


if __name__ == "__main__":
    screens.stations.STATIONS["home"] = screens.stations.Place("__main__", "WidgetShow", "widgets")
    from screens.start import open_app

    sys.exit(open_app(open_workspace(sys.argv[1])))
