"""SQL: any question about data, verdicts and runs; the answer in the grid.

Owns the query, its answer, and what is made of that: a dataset, a file, a saved query. Invariants: a query runs in a
child that ends with the query's task, so that Esc and Ctrl+C stop whatever it does; the answer that is shown stays
until the next one is there, and can be asked about as `last`. What a query may do is `workbench.sql_query`'s.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widget import Widget

from screens.grid import Grid
from screens.leaving import Opening
from screens.line import Line
from screens.modals import AskText
from screens.row_view import RowView
from screens.sql_editor import SqlEditor
from screens.sql_recall import Recall
from screens.station import KNOWN_ERRORS, Station
from screens.tasks import Task
from screens.text_view import Block, TextView
from workbench.dataset_window import BLOCK_ROWS, LONGEST_CELL, Cells, RowWindow, cell_of
from workbench.dataset_window_subject import RowReading, raw_json
from workbench.errors import WorkbenchError
from workbench.sql_query import QueryEnded, SqlResult, end_child, run_query, start_child
from workbench.sql_saved import (
    deliver,
    note_in_history,
    read_history,
    result_format,
    save_as_dataset,
    save_query,
    saved_queries,
)
from workbench.sql_views import SqlView, quoted_name, sql_views
from workbench.terminal_output import counted
from workbench.workspace import check_name, name_problem

SHOWN_ROWS = 100_000
"""Rows of an answer that are shown; what is saved and exported is the whole answer."""
MOST_COPIED = 100_000
FIRST_QUERY = "SELECT * FROM runs"
HINT = " enter runs it · tab completes a name · ctrl+j new line · ctrl+r recalls one"


@dataclass(frozen=True)
class Answer:
    """An answer that is open."""

    result: SqlResult
    window: RowWindow
    first: list[Cells]

    def close(self) -> None:
        """Close the window, then remove its file."""
        self.window.close()
        self.result.close()


class Sql(Station):
    """Ask."""

    NAME = "sql"
    TITLE = "sql"
    CSS_PATH = "sql.tcss"
    HELP = (
        "Type a query that reads, and enter runs it; ctrl+j begins a new line, tab completes names, up and down at the "
        "edges go through what was run before. esc or ctrl+c ends a query at once, whatever it does.\n\n"
        "A query reads the views below and nothing else: no file, no network, and nothing can be written. The answer "
        "before is the view last. Up to 100,000 rows are shown; s and w take the whole answer."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "edit", "edit query", id="sql.edit", tooltip="Back to the query."),
        Binding("ctrl+r", "recall", "recall", id="sql.recall", tooltip="Saved queries, and those that were run."),
        Binding("ctrl+o", "save_query", "save query", id="sql.save", tooltip="Keep the query under a name."),
        Binding("s", "save_dataset", "to dataset", id="sql.dataset", tooltip="Save the whole answer as a dataset."),
        Binding("w", "write", "to file", id="sql.write", tooltip="Write the whole answer: .csv, .jsonl or .parquet."),
        Binding("n", "step(1)", "next", show=False, id="sql.row_next", tooltip="The next row."),
        Binding("N", "step(-1)", "before", show=False, id="sql.row_before", tooltip="The row before."),
        Binding("y", "copy", "copy", show=False, id="sql.copy", tooltip="Copy the cell under the cursor."),
    ]

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._answer: Answer | None = None
        self._answers: Opening[Answer] = Opening(Answer.close)
        self._children: Opening[subprocess.Popen[bytes]] = Opening(end_child)
        self._spare: subprocess.Popen[bytes] | None = None
        """A child that waits for the next query, so that it need not be started then."""
        self._views: tuple[SqlView, ...] = ()

    def compose_body(self) -> Iterable[Widget]:
        text = f"FROM {quoted_name(self.subject)}" if self.subject else FIRST_QUERY
        yield Container(SqlEditor(text, id="query"), TextView(id="views"), id="asked")
        yield Line(id="how-much")
        yield Container(Grid(id="grid"), RowView(id="row"), TextView(id="refusal"), id="answer")

    @property
    def help_words(self) -> str:
        lines = [f"{view.quoted}: {view.words}\n    {', '.join(view.columns)}" for view in self._views]
        return "\n\n".join([self.HELP, *lines])

    @property
    def _editor(self) -> SqlEditor:
        return self.query_one(SqlEditor)

    @property
    def _grid(self) -> Grid:
        return self.query_one(Grid)

    def on_mount(self) -> None:
        self._editor.select_all()  # typing replaces what is proposed, an arrow keeps it
        self._editor.focus()
        self.query_one("#views").can_focus = False
        self.query_one("#how-much", Line).show((HINT, "$text-muted"))
        self.run_worker(self._learn(), exit_on_error=True)
        self.run_worker(self._make_ready(), exit_on_error=True)

    def on_unmount(self) -> None:
        self._answers.leave()
        self._children.leave()

    async def _learn(self) -> None:
        """Read what can be named, and what was asked before."""
        with suppress(*KNOWN_ERRORS):
            self._views, problems = await asyncio.to_thread(sql_views, self.workspace)
            past = await asyncio.to_thread(read_history, self.workspace)
            self._editor.views = self._views
            self._editor.past = [*past, *self._editor.past]
            blocks = []
            for view in self._views:
                blocks += [Block(view.quoted, "title"), Block(", ".join(view.columns), indent=2)]
            self.query_one("#views", TextView).show(blocks)
            self.say_where(f"{counted(len(self._views), 'view')}; ? lists them")
            if problems:
                self.say(problems[0], "bad")

    async def _make_ready(self) -> None:
        """Start the child of the next query."""
        with suppress(OSError):
            self._spare = await asyncio.to_thread(self._children.open, start_child)

    # A query.

    @on(SqlEditor.Wanted)
    def _wanted(self) -> None:
        query = self._editor.text.strip()
        if self._job is None and query:
            self._editor.remember(query)
        self.start_task("the query", lambda task: self._run(task, query), self._answered, failed=self._refused)

    def _run(self, task: Task, query: str) -> Answer:
        child, self._spare = self._spare, None
        last = self._answer.result.path if self._answer else None
        note_in_history(self.workspace, query)
        result = self._result(task, query, limit=SHOWN_ROWS, last=last, child=child)
        return self._answers.open(lambda: _opened(result))

    def _result(self, task: Task, query: str, **options: object) -> SqlResult:
        try:
            return run_query(self.workspace, query, should_stop=lambda: task.cancelled, **options)  # type: ignore[arg-type]
        except QueryEnded:
            task.check()
            raise

    def _answered(self, answer: Answer) -> None:
        before, self._answer = self._answer, answer
        self.remove_class("-refused", "-reading")
        self._grid.show(answer.window, answer.first, empty="no rows")
        if before is not None:
            self._answers.close(before)
        result = answer.result
        rows = counted(result.rows, "row")
        cut = f"the first {rows}, there may be more; s and w take all" if result.cut else rows
        columns = counted(len(result.columns), "column")
        self.query_one("#how-much", Line).show((f" {cut} · {columns} · {result.seconds:.2f} s", "$text-muted"))
        if result.notes:
            self.say(result.notes[0], "bad")
        if result.rows:
            self._grid.focus()
        self.run_worker(self._make_ready(), exit_on_error=True)

    def _refused(self, error: BaseException) -> None:
        self.run_worker(self._make_ready(), exit_on_error=True)
        if not isinstance(error, WorkbenchError):
            self.complain(error)
            return
        self.add_class("-refused")
        self.query_one("#refusal", TextView).show([Block("✗ " + str(error), "bad")])
        self.query_one("#how-much", Line).show()
        self._editor.focus()

    @on(SqlEditor.Offered)
    def _offered(self, event: SqlEditor.Offered) -> None:
        self.say("  ".join(event.offers) if event.offers else "nothing here begins so")

    # The answer.

    @on(Grid.Failed)
    def _failed(self, event: Grid.Failed) -> None:
        self.complain(event.error)

    @on(Grid.Opened)
    def _read(self) -> None:
        self.add_class("-reading")
        self.query_one(RowView).focus()
        self._show_row()

    @on(Grid.Moved)
    def _moved(self) -> None:
        if self.has_class("-reading"):
            self._show_row()

    def _show_row(self) -> None:
        answer, number = self._answer, self._grid.row_number
        if answer is None or number is None:
            return
        with suppress(*KNOWN_ERRORS):
            row = answer.window.row(number)
            fields = tuple((name, "∅" if (cell := cell_of(value)) is None else cell) for name, value in row.items())
            if any(isinstance(value, (dict, list)) for value in row.values()):
                self.query_one(RowView).show_row(answer.window.place(number), RowReading(), raw_json(row))
            else:
                self.query_one(RowView).show_row(answer.window.place(number), RowReading(fields=fields))

    def action_step(self, by: int) -> None:
        self._grid.action_move(by)

    def action_copy(self) -> None:
        answer, number = self._answer, self._grid.row_number
        if answer is not None and number is not None:
            cell = cell_of(answer.window.row(number).get(self._grid.column_name))
            self.app.copy_to_clipboard((cell or "")[:MOST_COPIED])
            self.say("the cell has no value" if cell is None else f"copied {self._grid.column_name}")

    def action_edit(self) -> None:
        self.remove_class("-reading")
        self._editor.focus()

    def action_back(self) -> None:
        if self._job is not None:
            super().action_back()
        elif self.has_class("-reading"):
            self.remove_class("-reading")
            self._grid.focus()
        elif self.focused is self._editor and self._answer is not None and not self.has_class("-refused"):
            self._grid.focus()
        else:
            super().action_back()

    # What is kept.

    def action_recall(self) -> None:
        saved = saved_queries(self.workspace)
        self.app.push_screen(Recall(saved, self._editor.past), self._recalled)

    def _recalled(self, query: str | None) -> None:
        if query is not None:
            self.remove_class("-reading")
            self._editor.put(query)
            self._editor.focus()

    def action_save_query(self) -> None:
        query = self._editor.text
        self.app.push_screen(
            AskText("Keep this query under which name?", check=_query_name_problem),
            lambda name: self._save(name, query),
        )

    def _save(self, name: str | None, query: str) -> None:
        if name:
            try:
                save_query(self.workspace, name, query)
                self.say(f"saved as {name}; ctrl+r lists it", "good")
            except KNOWN_ERRORS as error:
                self.complain(error)

    def action_save_dataset(self) -> None:
        if self._answer is None:
            self.say("run a query first")
            return
        self.app.push_screen(
            AskText("Save the whole answer as which dataset?",
                    check=lambda name: name_problem(self.workspace, "datasets", name)),
            lambda name: self._keep(name) if name else None,
        )  # fmt: skip

    def _keep(self, name: str) -> None:
        answer = self._answer
        assert answer is not None

        def work(task: Task) -> str:
            if not answer.result.cut:
                return save_as_dataset(self.workspace, answer.result, name).shape
            with self._result(task, answer.result.query) as whole:
                return save_as_dataset(self.workspace, whole, name).shape

        self.start_task(f"saving {name}", work, lambda shape: self._kept(f"{name} is a dataset, {shape}"))

    def action_write(self) -> None:
        if self._answer is None:
            self.say("run a query first")
            return
        question = AskText("Write the whole answer to which file?", placeholder="answer.csv", check=_file_problem)
        self.app.push_screen(question, lambda name: self._write(name) if name else None)

    def _write(self, name: str) -> None:
        answer, path = self._answer, Path(name).expanduser()
        assert answer is not None
        form = result_format(path)

        def work(task: Task) -> str:
            if answer.result.cut:
                result = self._result(task, answer.result.query, form=form)
            else:  # what is shown, also where asking again would give something else
                result = self._result(task, "FROM last", form=form, last=answer.result.path)
            with result:
                deliver(result, path)
            return f"{counted(result.rows, 'row')} in {path}"

        self.start_task(f"writing {path.name}", work, self._kept)

    def _kept(self, words: str) -> None:
        self.workbench_app.tell(words)
        self.run_worker(self._learn(), exit_on_error=True)


def _opened(result: SqlResult) -> Answer:
    from workbench.dataset_window_cut import cut_window
    from workbench.dataset_window_parquet import ParquetWindow

    try:
        window = (cut_window if result.longest > LONGEST_CELL else ParquetWindow)(result.path)
        return Answer(result, window, window.rows(0, BLOCK_ROWS))
    except BaseException:
        result.close()
        raise


def _query_name_problem(name: str) -> str:
    try:
        check_name(name, "query")
    except WorkbenchError as error:
        return str(error)
    return ""


def _file_problem(name: str) -> str:
    path = Path(name).expanduser()
    try:
        result_format(path)
    except WorkbenchError as error:
        return str(error)
    if path.exists():
        return "a file of that name is there already, and nothing is overwritten"
    return "" if path.absolute().parent.is_dir() else f"there is no folder {path.absolute().parent}"
