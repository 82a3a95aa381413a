"""Lint: what is wrong in a dataset, in how many rows, in which, and what to do about it.

A person reads the findings, goes through the rows of one, and opens a row in Inspect. Looking takes seconds for a large
file; what was found is kept by the content of the file, so coming back takes none. Nothing is changed in place: what
is dropped is dropped into a new dataset.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

from screens.line import Line
from screens.modals import AskText
from screens.row_list import Column, Row, RowList
from screens.station import KNOWN_ERRORS, Station
from screens.tasks import Task
from screens.text_view import Block, TextView
from workbench.dataset_store import Dataset
from workbench.errors import NotFound, WorkbenchError, some_of
from workbench.lint import NEEDS_OTHERS, NEEDS_TOKENS, lint, lint_told
from workbench.lint_dropping import drop_found
from workbench.lint_findings import KINDS
from workbench.preferences import Side
from workbench.row_address import row_address
from workbench.terminal_output import counted
from workbench.token_view import TokenChoice
from workbench.workspace import free_name, name_problem

Told = dict[str, Any]
_KEYS = {NEEDS_OTHERS: "a compares with another dataset", NEEDS_TOKENS: "m takes a model's tokenizer"}
"""Why something was not looked for, as the app says it."""


class Lint(Station):
    """The findings of one dataset."""

    NAME = "lint"
    TITLE = "lint"
    CSS_PATH = "lint.tcss"
    AUTO_FOCUS = "#findings"
    HELP = (
        "What one would want to know of a dataset before it trains a model: rows that come again, contradict each "
        "other or cannot be used, turns in a broken order, control characters, keys and addresses, and whether length "
        "alone tells which answer is preferred.\n\n"
        "enter goes to the rows of a finding, and there to the row itself. x makes a new dataset without the rows of "
        "the finding under the cursor; the dataset itself is never changed.\n\n"
        "a compares with other datasets, whose prompts must not be here; m reads the rows by a model's tokenizer and "
        "template, and finds what its max_length cuts or makes equal."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "rows", id="lint.open", tooltip="The rows of the finding; the row itself."),
        Binding("x", "drop", "drop into new", id="lint.drop", tooltip="A new dataset without the rows of the finding."),
        Binding("a", "against", "against", id="lint.against", tooltip="Compare with other datasets: what leaks."),
        Binding(
            "m", "model", "model", id="lint.model", tooltip="Also what a model's tokenizer and max_length make of it."
        ),
        Binding("t", "side", "train/eval", id="lint.side", tooltip="The other side of a preference set."),
        Binding("i", "profile", "profile", show=False, id="lint.profile", tooltip="What is in it, in numbers."),
        Binding("r", "again", "look again", id="lint.again", tooltip="Look again, whatever was found before."),
    ]

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._told: Told = {}
        self._side: Side = "train"
        self._against: tuple[str, ...] = ()
        self._tokens: TokenChoice | None = None

    def compose_body(self) -> Iterable[Widget]:
        with_rows = Vertical(
            RowList(
                [Column("finding", longest=22), Column("rows", right=True), Column("what it is", flexible=True)],
                empty="nothing was found",
                waits=True,
                id="findings",
            ),
            Line(id="remedy"),
            RowList(
                [Column("at", right=True), Column("what was seen", flexible=True)],
                empty="it is true of the whole dataset",
                waits=True,
                id="rows",
            ),
            id="lists",
        )
        yield with_rows
        yield TextView(id="about")

    def on_mount(self) -> None:
        self._look()

    def action_again(self) -> None:
        self._look(again=True)

    def action_against(self) -> None:
        names = [name for name in (*self.workspace.names("datasets"), *self.workspace.names("prefs"))
                 if name != self.subject]  # fmt: skip
        question = AskText(
            "Compare with which datasets, so that nothing leaks? Names with blanks between; empty: none.",
            value=" ".join(self._against),
            placeholder=" ".join(names),
            check=lambda text: _unknown(text.split(), names),
        )
        self.app.push_screen(question, self._with_others)

    def _with_others(self, text: str | None) -> None:
        if text is not None:
            self._against = tuple(dict.fromkeys(text.split()))
            self._look()

    def action_model(self) -> None:
        question = AskText(
            "By whose tokens, and under which max_length? A model as --model takes it; empty: none.",
            value=f"{self._tokens.model} max_length={self._tokens.max_length}" if self._tokens else "sample",
            check=_token_problem,
        )
        self.app.push_screen(question, self._with_tokens)

    def _with_tokens(self, text: str | None) -> None:
        if text is not None:
            self._tokens = TokenChoice.parse(text) if text.strip() else None
            self._look()

    def action_profile(self) -> None:
        self.workbench_app.open("profile", self.subject)

    def action_side(self) -> None:
        self._side = "eval" if self._side == "train" else "train"
        self._look()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "side" and self.subject not in self.workspace.names("prefs"):
            return False
        return super().check_action(action, parameters)

    def action_open(self) -> None:
        if self.focused is not self._rows:
            if self._rows.rows:
                self._rows.focus()
        elif key := self._rows.key:
            number, ordinal = (int(part) for part in key.split("."))
            if ordinal < 0:
                self.say("this row cannot be read; the file has to be mended")
            else:
                side = "eval" if self._is_set and self._side == "eval" else ""
                self.workbench_app.open("inspect", row_address(self.subject, number, ordinal, side))

    def action_drop(self) -> None:
        kind, name = self._findings.key, self.subject
        if not kind or not KINDS[kind].of_rows:
            self.say("no row can be dropped for this", "bad")
        elif self._is_set:
            self.say("a preference set is frozen; leave pairs out when freezing, or convert it to a dataset", "bad")
        else:
            self.app.push_screen(
                AskText(
                    f"A new dataset without the rows of {kind}. Its name:",
                    value=free_name(self.workspace.names("datasets"), f"{name}-clean"),
                    check=lambda text: name_problem(self.workspace, "datasets", text),
                ),
                lambda to: self._drop(kind, to) if to else None,
            )

    def action_back(self) -> None:
        if self.focused is self._rows:
            self._findings.focus()
        else:
            super().action_back()

    @property
    def _findings(self) -> RowList:
        return self.query_one("#findings", RowList)

    @property
    def _rows(self) -> RowList:
        return self.query_one("#rows", RowList)

    @property
    def _is_set(self) -> bool:
        return self.subject in self.workspace.names("prefs")

    def _look(self, *, again: bool = False) -> None:
        workspace, side, options = self.workspace, self._side, self._options()

        def work(task: Task) -> tuple[str, Told]:
            name = self.subject or next(iter((*workspace.names("datasets"), *workspace.names("prefs"))), "")
            if not name:
                raise NotFound("no dataset yet: a adds one.")
            return name, lint_told(workspace, name, side=side, again=again, progress=task.report, **options)

        self.start_task(f"looking through {self.subject or 'a dataset'}", work, self._show, failed=self._refused)

    def _options(self) -> dict[str, Any]:
        """With what it is compared, and by whose tokens."""
        tokens = {"model": self._tokens.model, "max_length": self._tokens.max_length} if self._tokens else {}
        return {"against": self._against, **tokens}

    def _refused(self, error: BaseException) -> None:
        self.say(str(error) if isinstance(error, KNOWN_ERRORS) else "", "bad")
        self.complain(error)

    def _show(self, found: tuple[str, Told]) -> None:
        self.subject, self._told = found
        told = self._told
        self._findings.show(
            [
                Row(one["kind"], (one["kind"], f"{one['count']:,}" if one["rows"] else "", one["title"]))
                for one in told["findings"]
            ]
        )
        kinds = len(told["findings"])
        beside = [f"against {', '.join(self._against)}"] if self._against else []
        beside += [f"tokens of {self._tokens.model}, max_length {self._tokens.max_length:,}"] if self._tokens else []
        self.say_where(
            f"{told['dataset']} · {counted(told['rows'], 'row')}, {told['usable']:,} usable · "
            + " · ".join([counted(kinds, "finding") if kinds else "nothing was found", *beside])
        )
        self._describe()
        self.refresh_bindings()

    @on(RowList.Opened)
    def _opened(self) -> None:
        self.action_open()

    @on(RowList.Moved, "#findings")
    def _moved(self) -> None:
        self._describe()

    def _describe(self) -> None:
        """The rows of the finding under the cursor, and what to do about it."""
        kind, told = self._findings.key, self._told
        one = next((found for found in told.get("findings", ()) if found["kind"] == kind), None)
        self._rows.display = one is not None
        if one is None:
            self._rows.show([])
            self.query_one("#remedy", Line).show()
        else:
            place = told["place"]
            rows = [
                Row(f"{row['row']}.{row['ordinal']}", (f"{place} {row['row']:,}", row["detail"])) for row in one["rows"]
            ]
            self._rows.show(rows)
            remedy = _in_the_app(one["what_to_do"])
            self.query_one("#remedy", Line).show(" → ", (remedy, "$text-muted"))
        self.query_one("#about", TextView).show(_about(told, one))

    def _drop(self, kind: str, to: str) -> None:
        workspace, name, options = self.workspace, self.subject, self._options()

        def work(task: Task) -> Dataset:
            report = lint(workspace, name, only=(kind,), progress=task.report, **options)
            return drop_found(workspace, report, (kind,), to, progress=task.report)

        self.start_task(f"making {to}", work, self._dropped)

    def _dropped(self, made: Dataset) -> None:
        self.workbench_app.tell(f"{made.name}: {counted(made.info.rows, 'row')}; {self.subject} is as it was")


def _in_the_app(remedy: str) -> str:
    """What to do, where a key does what the command's options do."""
    before, found, _ = remedy.partition("drop them into a new dataset: --drop")
    return f"{before}x drops them into a new dataset" if found else remedy


def _unknown(names: list[str], known: list[str]) -> str:
    wrong = next((name for name in names if name not in known), "")
    return f"{wrong!r} is none of: {some_of(known)}" if wrong else ""


def _token_problem(text: str) -> str:
    try:
        if text.strip():
            TokenChoice.parse(text)
    except WorkbenchError as error:
        return str(error)
    return ""


def _about(told: Told, one: Told | None) -> list[Block]:
    """What a wide screen says beside the lists: the finding's reasons, and what was not looked for."""
    blocks: list[Block] = []
    if one is not None:
        blocks += [Block(one["title"], "title"), Block(""), Block(_in_the_app(one["what_to_do"]))]
        if one["details"]:
            blocks += [Block("")]
            blocks += [
                Block(f"{count:,} × {detail}" if one["rows"] else detail) for detail, count in one["details"].items()
            ]
        if len(one["rows"]) < one["count"] and one["rows"]:
            blocks += [Block(""), Block(f"the first {len(one['rows']):,} of {one['count']:,} rows are listed", "faint")]
    why: dict[str, list[str]] = {}
    for kind, reason in told.get("not_looked_for", {}).items():
        why.setdefault(reason, []).append(kind)
    if why:
        blocks += [Block(""), Block("not looked for", "faint")]
        blocks += [Block(f"{', '.join(kinds)}: {_KEYS.get(reason, reason)}", "faint") for reason, kinds in why.items()]
    return blocks
