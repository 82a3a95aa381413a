"""Adding a dataset: a path, what its rows are recognised as, which column is what, and a name.

Owns the form. What is typed is looked at in a thread while one types on, and what is wrong stands under its field.
Invariants: nothing is added that the preview of exactly these texts refuses; adding can be cancelled and then leaves
nothing behind. What a file is, and whether it fits, is told by `workbench.dataset_preview`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Key
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input

from screens.line import Line
from screens.row_view import Lines, laid_out
from screens.station import Station
from screens.tasks import Task
from screens.text_view import TextView
from workbench.dataset_preview import Preview, completed_path, parse_mapping, preview
from workbench.terminal_output import counted
from workbench.text_wrapping import cut, wrap
from workbench.workspace import name_problem

TYPING_S = 0.3
"""The preview starts so long after the last key."""
WHY_LINES = 2
_LABELS = {"source": "file", "mapping": "columns", "name": "name"}
_HINTS = {
    "source": "JSONL, JSON, CSV, TSV, Parquet, .gz of them; or hf:ORG/NAME",
    "mapping": "empty, or which is which: prompt=question completion=answer",
    "name": "what it is called in this workspace",
}


class SourceInput(Input):
    """A path that Tab completes; where there is nothing to complete, Tab goes on."""

    async def on_key(self, event: Key) -> None:
        if event.key != "tab" or not self.value or self.value.startswith("hf:"):
            return
        completed, names = await asyncio.to_thread(completed_path, self.value)
        if completed != self.value:
            self.value = completed
            self.cursor_position = len(completed)
        elif len(names) > 1:
            self.screen.query_one("#about-source", Line).show(("  ".join(names[:20]), "$text-muted"))
        else:
            return
        event.stop()
        event.prevent_default()


class RowsView(TextView):
    """The first rows, one below the other, as they would be trained on."""

    _preview: Preview | None = None

    def show_preview(self, found: Preview) -> None:
        """Show the rows of a preview, or the columns where the rows fit nothing."""
        self._preview = found
        self._lay_out()
        self.scroll_to(y=0, animate=False, immediate=True)

    def _lay_out(self) -> None:
        width = self._width = self.scrollable_content_region.width
        if self._preview is None or width <= 0:
            return
        lines: Lines = []
        problem = self._preview.source_problem or self._preview.mapping_problem
        if problem:
            lines += [*((line, "bad") for line in wrap(problem, width)), ("", "plain")]
        if not self._preview.rows:
            for name, kinds in self._preview.columns.items():
                lines.append((cut(f"{name}: {' or '.join(kinds) or 'nothing'}", width), "plain"))
        for row in self._preview.rows:
            lines.append((cut(row.place, width), "faint"))
            lines += laid_out(row.reading, "", width)
        self._put(lines)


class AddDataset(Station):
    """Add a dataset."""

    NAME = "add"
    TITLE = "add a dataset"
    CSS_PATH = "add_dataset.tcss"
    HELP = (
        "Name a file, and see what its rows are taken for before anything is added: which column is the prompt, which "
        "the answer, and the first rows as they would be trained on.\n\n"
        "Where the recognition is wrong or fails, say which column is what: prompt=question completion=answer. Fields: "
        "text, prompt, completion, messages, chosen, rejected, a, b, system, input, history, label, margin; "
        "shape=SHAPE and as=plain are possible too.\n\n"
        "enter adds it. The file stays where it is and is recorded by its hash; rows that cannot be used are counted "
        "and listed. esc cancels, and then nothing is left behind."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,a", "add", "add", id="add.add", tooltip="Add the dataset, then look at its rows."),
        Binding("tab", "app.focus_next", "next field", id="add.next", tooltip="Complete the path, or the next field."),
        Binding("shift+tab", "app.focus_previous", "field before", show=False, id="add.before",
                tooltip="The field before."),
    ]  # fmt: skip

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._seen = Preview("")
        self._looked_at: tuple[str, str] | None = None
        """The source and the mapping of the preview that is shown."""
        self._looking = False
        self._name_chosen = False
        """Whether the person typed a name of their own."""
        self._named = ""
        self._typing: Timer | None = None
        self._add_when_seen = False

    def compose_body(self) -> Iterable[Widget]:
        for field, label in _LABELS.items():
            made = SourceInput if field == "source" else Input
            entry = made(self.subject if field == "source" else "", id=field)
            entry.cursor_blink = False
            yield Container(Line(label), entry, classes="field")
            yield Line((_HINTS[field], "$text-muted"), id=f"about-{field}", classes="about")
            if field == "mapping":
                yield from (Line("", id=f"why-{number}", classes="about") for number in range(WHY_LINES))
        yield Line("", id="rule")
        yield RowsView(id="rows")

    def on_mount(self) -> None:
        self.query_one("#source", Input).focus()
        if self.workspace.read_only_reason:
            self.say(f"this workspace is read-only: {self.workspace.read_only_reason}", "bad")
        self._look()

    # What is typed.

    @on(Input.Changed, "#source, #mapping")
    def _typed(self, event: Input.Changed) -> None:
        if self._typing is not None:
            self._typing.stop()
        self._add_when_seen = False
        self._typing = self.set_timer(TYPING_S, self._look)

    @on(Input.Changed, "#name")
    def _name_typed(self, event: Input.Changed) -> None:
        name = event.input.value  # as it is now: the name of another preview may have been put there since
        self._name_chosen = bool(name) and name != self._named
        self._show_name()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_add()

    @property
    def _texts(self) -> tuple[str, str]:
        return self.query_one("#source", Input).value, self.query_one("#mapping", Input).value

    def _look(self) -> None:
        """Look at what is typed; the latest, however fast it changes."""
        if not self._looking and self._texts != self._looked_at:
            self._looking = True
            self.run_worker(self._look_until_seen(), exit_on_error=True)

    async def _look_until_seen(self) -> None:
        try:
            while (texts := self._texts) != self._looked_at:
                found = await asyncio.to_thread(preview, *texts)
                self._looked_at = texts
                if self._texts == texts:
                    self._show(found)
        finally:
            self._looking = False
        if self._add_when_seen:
            self.action_add()

    # What is shown.

    def _show(self, found: Preview) -> None:
        self._seen = found
        self._about("source", found.source_problem, f"✓ {found.file}" if found.file else "")
        shape = found.recognition.shape if found.recognition else ""
        self._about("mapping", found.mapping_problem, f"✓ {shape}: {found.mapping_words}" if shape else "")
        why = found.recognition.why if found.recognition else ""
        width = max(20, self.size.width - 12)
        # What is wrong with the mapping may be longer than its line: it goes on where else the reason stands.
        problem = found.mapping_problem
        lines = wrap(f"✗ {problem}", width)[1:] if problem else wrap(why, width) if why else []
        if len(lines) > WHY_LINES:
            lines = [*lines[: WHY_LINES - 1], cut(" ".join(lines[WHY_LINES - 1 :]), width)]
        for number in range(WHY_LINES):
            line = lines[number] if number < len(lines) else ""
            self.query_one(f"#why-{number}", Line).show((line, "$error" if problem else "$text-muted"))
        if not self._name_chosen and found.default_name:
            self._named = found.default_name
            self.query_one("#name", Input).value = found.default_name
        self._show_name()
        if self._job is None:
            self.say("enter adds it" if found.can_be_added else "")
        self.query_one("#rule", Line).show((self._rule_words(found), "$text-muted"))
        self.query_one(RowsView).show_preview(found)

    def _about(self, field: str, problem: str, seen: str) -> None:
        width = max(20, self.size.width - 12)
        line = self.query_one(f"#about-{field}", Line)
        if problem:
            first = cut(f"✗ {problem}", width) if field != "mapping" else wrap(f"✗ {problem}", width)[0]
            line.show((first, "$error"))
        else:
            line.show((cut(seen or _HINTS[field], width), "$success" if seen else "$text-muted"))

    def _show_name(self) -> None:
        name = self.query_one("#name", Input).value
        problem = name_problem(self.workspace, "datasets", name) if name else ""
        self._about("name", problem, "✓ free" if name and not problem else "")

    def _rule_words(self, found: Preview) -> str:
        if not found.columns:
            return ""
        what = f"the first of about {found.estimated_rows:,} rows" if found.estimated_rows else "the first rows"
        if not found.rows:
            what = "its columns"
        left_out = f" · {found.rejected:,} of the first {found.read:,} cannot be used" if found.rejected else ""
        words = f"── {what}{left_out} "
        return words + "─" * max(0, self.size.width - 2 - len(words))

    # Adding.

    def action_add(self) -> None:
        if self.app.screen is not self:
            return  # Esc came before what Enter sent was here
        if self._looking or self._texts != self._looked_at:
            self._add_when_seen = True
            self.say("looking at it …")
            self._look()
            return
        self._add_when_seen = False
        name = self.query_one("#name", Input).value or self._seen.default_name
        problem = self._why_not(name)
        if problem:
            field, words = problem
            self.say(words, "bad")
            self.query_one(f"#{field}", Input).focus()
            return
        seen, mapping, workspace = self._seen, parse_mapping(self._texts[1]), self.workspace

        def work(task: Task) -> str:
            from workbench.dataset_store import add_dataset

            def report(rows: int) -> None:
                task.report(rows, max(rows, seen.estimated_rows) if seen.estimated_rows else 0, f"{rows:,} rows")

            return add_dataset(workspace, seen.source, name, mapping, progress=report).name

        self.say(f"adding {name} …")
        self.start_task(f"adding {name}", work, self._added, failed=self._not_added)

    def _why_not(self, name: str) -> tuple[str, str] | None:
        """(field, reason) why this cannot be added; None where it can."""
        if not self._seen.source:
            return "source", "name a file first"
        if self._seen.source_problem:
            return "source", "this file cannot be added; the reason stands under it"
        if self._seen.mapping_problem:
            return "mapping", "say which column is what; the reason stands under the field"
        if not name or name_problem(self.workspace, "datasets", name):
            return "name", name_problem(self.workspace, "datasets", name) if name else "give it a name"
        return None

    def _added(self, name: str) -> None:
        from workbench.dataset_store import open_dataset

        info = open_dataset(self.workspace, name).info
        left_out = sum(info.rejected.values())
        more = f", {counted(left_out, 'row')} left out: {', '.join(info.rejected)}" if left_out else ""
        self.workbench_app.tell(
            f"added {name}: {counted(info.rows, 'row')}{more}", "warning" if left_out else "information"
        )
        self.workbench_app.go("inspect", name)

    def _not_added(self, error: BaseException) -> None:
        self.say(str(error), "bad")
        self.complain(error)
        self._show_name()
