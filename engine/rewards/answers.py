"""An answer as a judge of texts is given it, and the judge that is a Python function.

Owns what of a frozen row a function sees: its id, its tags by the names of their columns, and its own answer as
`reference`. Invariant: every field is a list with one entry for each completion, None where a row lacks it.
Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import RewardError
from engine.rewards.process import RewardProcess

EXCERPT_CHARACTERS = 80
ROWS_LOOKED_AT = 200
GIVEN = ("prompts", "completions")
"""Names that a field of a row cannot have."""


@dataclass(frozen=True)
class Answer:
    """A completion and the row that it answers."""

    row: Mapping[str, Any]
    """The frozen row: "id", "prompt", and "tags", "reference", "tools" where it has them."""
    completion: str
    """Without the tokens that end a turn."""
    stopped: bool
    """Whether it ended by itself."""
    ids: Sequence[int] = ()
    """Prompt and completion in the policy's tokens, for a judge that has the very same."""


class FunctionJudge:
    """A Python reward function, called in the run's child."""

    def __init__(self, process: RewardProcess, number: int, who: str) -> None:
        """It is function `number` of `process`; `who` names it in errors."""
        self._process = process
        self._number = number
        self._who = who

    def require_fields(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raises RewardError where the function cannot do without a field that none of the first rows has."""
        there = {name for row in rows[:ROWS_LOOKED_AT] for name in fields_of(row)} | {"stopped"}
        signature = self._process.signatures[self._number]
        if missing := sorted(signature.needs - there):
            raise RewardError(
                f"{self._who} needs {', '.join(missing)}, which the rows of the prompts do not have; they have: "
                f"{', '.join(sorted(there))}. Give the parameter a default, or add the column to the data"
            )

    def scores(self, answers: Sequence[Answer]) -> list[float]:
        """The function's score of each answer. Raises RewardError naming row and completion where that is known."""
        signature = self._process.signatures[self._number]
        fields = columns_of(answers)
        if not signature.any:
            fields = {name: values for name, values in fields.items() if name in signature.takes}
            fields |= {name: [None] * len(answers) for name in signature.needs - fields.keys()}
        prompts = [answer.row.get("prompt") for answer in answers]
        try:
            return self._process.scores(self._number, prompts, [answer.completion for answer in answers], fields)
        except RewardError as error:
            if error.row is None:
                raise
            answer = answers[error.row]
            text = answer.completion
            shown = text if len(text) <= EXCERPT_CHARACTERS else text[:EXCERPT_CHARACTERS] + "…"
            raise RewardError(f"{error}; for row {answer.row.get('id')} and the completion {shown!r}") from error


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a function is given of a row, by name; what the program itself gives wins over a column of that name."""
    tags = row.get("tags")
    found = {str(name): value for name, value in tags.items()} if isinstance(tags, Mapping) else {}
    found |= {name: row[name] for name in ("id", "reference", "tools") if row.get(name) is not None}
    return {name: value for name, value in found.items() if name not in GIVEN}


def columns_of(answers: Sequence[Answer]) -> dict[str, list[Any]]:
    """The fields of all answers as lists of equal length."""
    rows = [fields_of(answer.row) for answer in answers]
    names = {name: None for row in rows for name in row}
    columns = {name: [row.get(name) for row in rows] for name in names}
    columns["stopped"] = [answer.stopped for answer in answers]
    return columns
