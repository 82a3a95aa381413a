"""How Inspect shows the row under the cursor: as it reads, as JSON, or as a model sees it; and what its help says.

Owns the mode, and the process that tokenises. Invariants: a row is read in a thread; the tokens are the engine's own;
who leaves the screen ends the process, whatever a chat template does in it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from screens.row_view import RowView
from workbench.canonical_rows import RowRejected
from workbench.dataset_window import TEXT_CHARACTERS, RowWindow, is_cut
from workbench.dataset_window_subject import RowReading, Subject, raw_json, read_row
from workbench.row_conversion import to_canonical
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.model_names import ResolvedModel
    from workbench.token_view import TokenChoice, TokenReader

READ, RAW, TOKENS = "read", "raw", "tokens"
HELP = (
    "The rows of a dataset as the file has them, or of a preference set. Only what you look at is read, so ten "
    "million rows open as fast as ten. Cells show the beginning of their text; ∅ is a missing value, which is not "
    "the empty text.\n\n"
    "enter reads the row under the cursor as training would see it: who says what, two answers side by side. A row "
    "that cannot be used says why and shows its columns. In a wide terminal the row stands beside the grid.\n\n"
    "m shows the row as a model sees it, by the tokenizer and the template of training: a bar ends each token, ⟦ ⟧ "
    "holds a special one, a thick bar before the line says that its tokens are trained, × that max_length cuts "
    "them; o chooses the model and the limit.\n\n"
    "/ keeps the rows that contain a text in any column, whatever its case; hits show while the search goes on. Or "
    'conditions: tokens > 100 and source = forum and prompt has "rear wheel" and label is null sort -tokens. s sorts '
    "by the column under the cursor; # goes to a row by its number. "
    "esc leaves the row, then the filter, then the screen."
)
"""What a person does on the screen."""
Put = Callable[[RowView], None]
"""Shows in a view what was read of a row."""


class RowShowing:
    """What is shown of a row, and by whose tokens."""

    def __init__(self, workspace: Callable[[], Workspace]) -> None:
        self._workspace = workspace
        self.mode = READ
        self._choice: TokenChoice | None = None
        self._reader: TokenReader | None = None
        self._models: dict[str, ResolvedModel] = {}
        self._left = False

    @property
    def choice(self) -> TokenChoice:
        """Whose tokens, under which limit."""
        from workbench.token_view import TokenChoice  # rows are there sooner without it

        self._choice = self._choice or TokenChoice()
        return self._choice

    def turn(self, mode: str) -> None:
        """Go to a mode, or back to reading where it is that one."""
        self.mode = READ if self.mode == mode else mode

    def read(self, window: RowWindow, subject: Subject, number: int) -> Put:
        """In a thread: read a row in the present mode. Raises WorkbenchError where it cannot be shown so."""
        row = window.row(number)
        place = window.place(number)
        if self.mode == RAW:
            return _put(f"{place} · as the file has it", RowReading(), raw_json(row))
        reading = read_row(subject, row, place)
        if self.mode == TOKENS and is_cut(row):
            return _put(
                place, RowReading(reason=f"a text of more than {TEXT_CHARACTERS:,} characters: too many tokens")
            )
        if self.mode == TOKENS and not reading.reason:
            try:
                canonical = to_canonical(row, subject.recognition, place) if subject.recognition else row
            except RowRejected as error:
                return _put(place, RowReading(reason=error.reason), "")
            return self._tokens_of(dict(canonical), place)
        if reading.reason or subject.recognition is None:
            return _put(place, reading, "")
        return _put(f"{place} · as it is trained on ({subject.shape})", reading, "")

    def check(self, text: str) -> str:
        """What is wrong with a choice of model and limit; empty where nothing is."""
        try:
            self.choice.parse(text)
        except Exception as error:
            return str(error)
        return ""

    def choose(self, text: str) -> None:
        """Take other tokens, and show them."""
        self._choice = self.choice.parse(text)
        self.mode = TOKENS

    def leave(self) -> None:
        """End the process."""
        self._left = True
        if self._reader is not None:
            self._reader.close()

    def _tokens_of(self, row: dict[str, Any], place: str) -> Put:
        from workbench.token_view import TokenReader, token_lines

        self._reader = self._reader or TokenReader()
        found = self._reader.read(self._model(), self.choice, row, lambda: self._left)
        lines = partial(token_lines, found, self.choice)
        return lambda view: view.show_lines(f"{place} · as {self.choice.model} sees it", lines)

    def _model(self) -> ResolvedModel:
        from workbench.model_names import resolve_model  # with all that runs are: not before it is needed

        name = self.choice.model
        if name not in self._models:
            self._models[name] = resolve_model(self._workspace(), name, quiet=True)
        return self._models[name]


def _put(title: str, reading: RowReading, raw: str = "") -> Put:
    return lambda view: view.show_row(title, reading, raw)
