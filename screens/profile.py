"""Profile: what is in a dataset, in numbers: lengths, columns, turns, scripts.

A person sees at once what the first rows say, named as a sample, and then what all of them say. What was worked out is
kept by the content of the file. Nothing here judges: what is wrong is told by Lint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widget import Widget

from screens.line import Line
from screens.modals import AskText
from screens.station import KNOWN_ERRORS, Station
from screens.tasks import Task
from screens.text_view import Block, TextView
from workbench.dataset_profile import SAMPLE_ROWS, profile
from workbench.errors import NotFound
from workbench.preferences import Side
from workbench.profile_words import profile_lines, profile_title
from workbench.terminal_output import counted

Told = dict[str, Any]


class Profile(Station):
    """The numbers of one dataset."""

    NAME = "profile"
    TITLE = "profile"
    CSS_PATH = "profile.tcss"
    AUTO_FOCUS = "#tables"
    HELP = (
        "What is in a dataset: how long its texts are, what its columns hold, how many values are missing or come "
        "again, how many turns there are and in which scripts.\n\n"
        "The first rows are told at once and called a sample; all rows follow, and esc ends that. m counts tokens, "
        "too, by the tokenizer of a model, and says how many examples are longer than 1,024 (the command takes another "
        "--max-length). Distinct values are counted, and ≈ estimated only where there is no disk for that; ≥ is a "
        "count that is at least so large."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "model", "tokens", id="profile.model", tooltip="Count tokens, too, by a model's tokenizer."),
        Binding("t", "side", "train/eval", id="profile.side", tooltip="The other side of a preference set."),
        Binding("c", "check", "check", id="profile.check", tooltip="Lint: what is wrong in it, and in which rows."),
    ]

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._told: Told = {}
        self._side: Side = "train"
        self._model = ""

    def compose_body(self) -> Iterable[Widget]:
        yield Line(id="what")
        yield TextView(id="tables")

    def on_mount(self) -> None:
        self._read(SAMPLE_ROWS)

    def on_resize(self, event: Resize) -> None:
        self._draw()

    def action_model(self) -> None:
        self.app.push_screen(
            AskText("Count tokens by the tokenizer of which model?", value=self._model or "sample"), self._with_model
        )

    def _with_model(self, model: str | None) -> None:
        if model is not None:
            self._model = model.strip()
            self._read(SAMPLE_ROWS)

    def action_check(self) -> None:
        self.workbench_app.open("lint", self.subject)

    def action_side(self) -> None:
        self._side = "eval" if self._side == "train" else "train"
        self._read(SAMPLE_ROWS)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "side" and self.subject not in self.workspace.names("prefs"):
            return False
        return super().check_action(action, parameters)

    def _read(self, sample: int) -> None:
        """Work out the profile of the first rows, and after it that of all."""
        workspace, side, model, subject = self.workspace, self._side, self._model, self.subject

        def work(task: Task) -> tuple[str, Told]:
            name = subject or next(iter((*workspace.names("datasets"), *workspace.names("prefs"))), "")
            if not name:
                raise NotFound("no dataset yet: a adds one.")
            return name, profile(workspace, name, side=side, model=model, sample=sample, progress=task.report)

        doing = f"profiling {'the first rows of ' if sample else ''}{subject or 'a dataset'}"
        self.start_task(doing, work, self._show, failed=self._refused)

    def _refused(self, error: BaseException) -> None:
        self.say(str(error) if isinstance(error, KNOWN_ERRORS) else "", "bad")
        self.complain(error)

    def _show(self, found: tuple[str, Told]) -> None:
        self.subject, self._told = found
        self._draw()
        self.refresh_bindings()
        if self._told["sample_of"] is not None:
            self._read(0)

    def _draw(self) -> None:
        if not self._told:
            return
        title = profile_title(self._told)
        self.say_where(title)
        sampled = self._told["sample_of"] is not None
        read = self._told["rows"]
        what = f"a sample, the first {read:,} rows; all of them follow" if sampled else f"all {counted(read, 'row')}"
        self.query_one("#what", Line).show(" ", (what, "$warning" if sampled else "$text-muted"))
        lines = profile_lines(self._told, self.size.width - 3)
        blocks = [Block(line, "title" if heading else "plain") for line, heading in lines]
        self.query_one("#tables", TextView).show(blocks[1:])
