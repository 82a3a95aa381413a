"""A reward model with a base of its own: it reads answers as texts, in its own tokenizer and template.

Owns the way from an answer that the policy wrote to the ids that this model was trained to judge. Invariants: an answer
that ended ends with this model's end of turn, and one that was cut off does not, as in the policy's own ids; a model
with the policy's tokenizer and template judges exactly what it would as a role on the policy's base. Nothing trains
here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from engine.data.chat import ChatTokenizer
from engine.data.chat_messages import tools_of
from engine.data.packing import Document, fill_by_token_budget, pack
from engine.errors import DataError, ModelError, RewardError
from engine.model.adapters import RoleModel
from engine.model.heads import ScalarHead
from engine.rewards.answers import Answer


class ApartJudge:
    """A reward model beside the run's base."""

    def __init__(
        self,
        who: str,
        roles: RoleModel,
        head: ScalarHead,
        tokenizer: ChatTokenizer,
        *,
        same_tokens: bool,
        window: int,
        tokens_at_once: int,
        device: torch.device,
        check: Callable[[], None],
    ) -> None:
        """`who` names it in errors; the trained role of `roles` is the reward model. With `same_tokens` its tokenizer
        and template are the policy's, whose ids it reads as they are. `window` is how many tokens it can read, 0 for
        any number. `check` may raise StopRequested between batches.
        """
        self._who = who
        self._roles = roles
        self._head = head
        self._tokenizer = tokenizer
        self._same_tokens = same_tokens
        self._window = window
        self._budget = tokens_at_once
        self._device = device
        self._check = check

    def require_prompts(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raises RewardError where this model cannot read a prompt as the first row has it."""
        if len(rows):
            self._ids(Answer(rows[0], "a", True))

    def scores(self, answers: Sequence[Answer]) -> list[float]:
        """Its raw score of each answer. Raises RewardError naming the row that it cannot read."""
        documents = [Document(ids, [False] * len(ids)) for ids in map(self._ids, answers)]
        found_D = torch.zeros(len(documents))
        with torch.no_grad():
            for group in fill_by_token_budget([len(document.ids) for document in documents], self._budget):
                self._check()
                batch = pack([documents[i] for i in group], self._device)
                judged_TH = self._roles.hidden(batch, self._roles.trained)
                found_D[group] = self._head(judged_TH.index_select(0, batch.last_rows_D)).cpu()
        if not bool(found_D.isfinite().all()):
            row = answers[int((~found_D.isfinite()).nonzero()[0])].row.get("id")
            raise RewardError(f"{self._who} gave a score that is no number for row {row}: use another checkpoint")
        scores: list[float] = found_D.tolist()
        return scores

    def _ids(self, answer: Answer) -> list[int]:
        """Prompt and answer in this model's tokens."""
        if self._same_tokens and answer.ids:
            return list(answer.ids)
        prompt, row = answer.row["prompt"], answer.row.get("id")
        try:
            tools = tools_of(answer.row.get("tools"))
            said = self._tokenizer.completion_ids(prompt, answer.completion, tools)
            ids = [*self._tokenizer.prompt_ids(prompt, tools), *(said if answer.stopped else self._without_end(said))]
        except (DataError, ModelError) as error:
            raise RewardError(f"{self._who} cannot read row {row}: {error}") from error
        if self._window and len(ids) > self._window:
            raise RewardError(
                f"{self._who} reads {self._window} tokens, and row {row} with its answer has {len(ids)} in its "
                "tokenizer. Lower data.max_length or max_new_tokens, or leave long prompts out"
            )
        return ids

    def _without_end(self, ids: Sequence[int]) -> Sequence[int]:
        return ids[:-1] if ids and ids[-1] in self._tokenizer.stop_ids else ids
