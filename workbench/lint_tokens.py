"""What a row loses when it becomes tokens: cut ends, differences that are cut off, prompts that leave no room.

Owns the reading of rows by the engine's own functions, so that what is told here is what a run would count. Loads the
tokenizer library, and no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.workspace import Workspace

if TYPE_CHECKING:
    from engine.data.chat import ChatTokenizer

MAX_LENGTH = 1024
"""Where none is named: the default of data.max_length."""


class TokenChecks:
    """Reads rows as a run on this model would."""

    def __init__(self, workspace: Workspace, model: str, max_length: int) -> None:
        """Raises WorkbenchError or EngineError where the model or its tokenizer cannot be found."""
        from engine.run.config_chat import ChatConfig
        from workbench.model_names import resolve_model
        from workbench.run_chat import tokenizer_of

        found = resolve_model(workspace, model, quiet=True)
        self.model = found.source
        self.max_length = max_length
        self._tokenizer: ChatTokenizer = tokenizer_of(ChatConfig(), found)
        self.sha256 = self._tokenizer.sha256

    def look(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """(kind of finding, what was seen) of a canonical row; two empty texts where nothing is lost."""
        from engine.data.examples import IDENTICAL, IDENTICAL_TRUNCATED
        from engine.errors import DataError

        read = _reading_of(row)
        if read is None:
            return "", ""
        try:
            with self._tokenizer.renderings.of_one_row():
                found = read(dict(row), str(row["id"]), tokenizer=self._tokenizer, max_length=self.max_length)
        except DataError as error:
            return "refused", str(error)[:200]
        if IDENTICAL_TRUNCATED in found.dropped:
            return "lost-difference", f"both answers begin with the same tokens up to {self.max_length}"
        if IDENTICAL in found.dropped:
            return "equal-answers", "both answers have the same tokens"
        if too_long := [reason for reason in found.dropped if reason.startswith("too long")]:
            return "no-room", too_long[0].removeprefix("too long: ")
        if found.truncated:
            return "cut", f"longer than {self.max_length} tokens"
        return "", ""

    def length(self, row: Mapping[str, Any]) -> int | None:
        """Tokens of the longest example that a canonical row gives, uncut; None where the template refuses it."""
        from engine.errors import DataError

        read = _reading_of(row)
        if read is None:
            return self._longest_of_two(row)
        try:
            with self._tokenizer.renderings.of_one_row():
                found = read(dict(row), str(row["id"]), tokenizer=self._tokenizer, max_length=_UNCUT)
        except DataError:
            return None
        return max((_tokens_in(example) for example in found.examples), default=None)

    def _longest_of_two(self, row: Mapping[str, Any]) -> int | None:
        """Of two answers without a verdict, each as a completion."""
        lengths = [
            self.length({"id": row["id"], "prompt": row["prompt"], "completion": row[side]}) for side in ("a", "b")
        ]
        return max((length for length in lengths if length is not None), default=None)


_UNCUT = 1 << 30


def _tokens_in(example: Any) -> int:
    """Of a prompt with the longer of its answers, or of a whole sequence."""
    if hasattr(example, "ids"):
        return len(example.ids)
    answers = [getattr(example, name, ()) for name in ("chosen", "rejected", "completion")]
    return len(example.prompt) + max(map(len, answers))


def _reading_of(row: Mapping[str, Any]) -> Callable[..., Any] | None:
    """How a run reads such a row; None for rows without a verdict, which nothing is trained on."""
    from engine.data.examples import preference_row, prompt_row
    from engine.data.labelled_examples import labelled_row
    from engine.data.sft_examples import sft_row

    if "chosen" in row:
        return preference_row
    if "label" in row:
        return labelled_row
    if "a" in row:
        return None
    if "completion" in row or "messages" in row or "text" in row:
        return sft_row
    return prompt_row
