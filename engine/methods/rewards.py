"""What judges the completions of a run: reward models over the run's base, judges of texts, or both, and their weights.

Owns which column of a step's scores is whose, and the figures of each. Invariants: the columns are in the order of the
run's rewards; a reward model over the base judges the very micro-batches that are trained on, in the pass that measures
them; a judge of texts sees completions as people read them, with the frozen rows of their prompts, and is asked once
for all completions of a step. What becomes of the scores is in `score_rules.py`.
Shapes: D completions, K rewards, T tokens of a micro-batch, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from engine.data.examples import PromptExample
from engine.data.host_copies import queued
from engine.data.packing import PackedBatch
from engine.methods.method import Metric, mean_and_error
from engine.model.adapters import REWARD, RoleModel
from engine.model.heads import ScalarHead, ScoreScale
from engine.model.sampler import Completion
from engine.ranks import leads, sum_over_ranks
from engine.rewards.answers import Answer

IN_ITS_OWN_UNIT = ScoreScale(0.0, 1.0)
"""The scale of a reward that has a zero and a unit of its own."""


@dataclass(frozen=True)
class Term:
    """One reward in the sum."""

    label: str
    """What the run calls it in the names of metrics."""
    weight: float
    scale: ScoreScale
    """Where its raw scores lie on held-out answers."""


@dataclass(frozen=True)
class BaseJudge:
    """A reward model that is a role on the run's base."""

    role: str
    head: ScalarHead


class TextJudge(Protocol):
    """A judge that reads texts."""

    def scores(self, answers: Sequence[Answer]) -> Sequence[float]:
        """A finite score for each answer. Raises RewardError."""
        ...


@dataclass(frozen=True)
class Rewards:
    """All rewards of a run; column k of scores is that of `terms[k]`, given by `judges[k]`."""

    terms: tuple[Term, ...]
    judges: tuple[BaseJudge | TextJudge, ...]
    rows: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Frozen rows behind the examples of "train" and "eval", for judges of texts."""
    decode: Callable[[Sequence[int]], str] = lambda ids: ""
    """Ids of a completion as people read it."""

    @classmethod
    def of_model(cls, head: ScalarHead, scale: ScoreScale) -> Rewards:
        """One reward model over the base, the role "reward"."""
        return cls((Term("reward_model", 1.0, scale),), (BaseJudge(REWARD, head),))

    @property
    def has_base_judge(self) -> bool:
        """Whether a reward model over the run's base is among them."""
        return self.value_start is not None

    @property
    def value_start(self) -> tuple[BaseJudge, Term] | None:
        """The reward model that a value function can begin as: the first over the base; None where there is none."""
        pairs = zip(self.judges, self.terms, strict=True)
        return next(((judge, term) for judge, term in pairs if isinstance(judge, BaseJudge)), None)

    def of_texts(
        self,
        side: str,
        places: Sequence[int],
        prompts: Sequence[PromptExample],
        completions: Sequence[Completion],
    ) -> torch.Tensor:
        """What the judges of texts say, (D, K) on the host; 0 in the columns of the others.

        `prompts` are what the completions answer, `places` where they stand among the examples of `side`. Of processes
        that train together the leading one asks for all, so that a judge sees a step as it does with one. Raises
        RewardError.
        """
        told_DK = torch.zeros(len(completions), len(self.terms))
        columns = [k for k, judge in enumerate(self.judges) if not isinstance(judge, BaseJudge)]
        if not columns:
            return told_DK
        rows = self.rows[side]
        answers = [
            Answer(rows[place], self.decode(completion.ids), completion.stopped, [*prompt.prompt, *completion.ids])
            for place, prompt, completion in zip(places, prompts, completions, strict=True)
        ]
        for k in columns if leads() else ():
            judge = self.judges[k]
            assert not isinstance(judge, BaseJudge)
            told_DK[:, k] = torch.tensor(judge.scores(answers), dtype=torch.float32)
        return sum_over_ranks(told_DK)

    def of_batch(
        self, roles: RoleModel, batch: PackedBatch, told_DK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Raw scores (D, K) of a packed micro-batch, of which `told_DK` holds what judges of texts said, and the hidden
        states (T, H) of the reward model that a value function can begin as. Without gradient."""
        raw_DK = queued(told_DK, batch.ids_T.device)
        first_TH: torch.Tensor | None = None
        with torch.no_grad():
            for k, judge in enumerate(self.judges):
                if not isinstance(judge, BaseJudge):
                    continue
                judged_TH = roles.hidden(batch, judge.role).float()
                raw_DK[:, k] = judge.head(judged_TH.index_select(0, batch.last_rows_D))
                first_TH = judged_TH if first_TH is None else first_TH
        return raw_DK, first_TH

    def unheard(self, batch: PackedBatch) -> torch.Tensor:
        """Zeros in the place of raw scores (D, K) that another process finds and tells."""
        return torch.zeros(len(batch.spans), len(self.terms), device=batch.ids_T.device)

    @property
    def told_apart(self) -> bool:
        """Whether each reward has figures of its own: not where a reward model over the base is the only one."""
        return len(self.terms) > 1 or not isinstance(self.judges[0], BaseJudge)

    def weighted(self, raw_DK: torch.Tensor) -> torch.Tensor:
        """Weighted sums of raw scores, (D,)."""
        return sum((term.weight * raw_DK[:, k] for k, term in enumerate(self.terms)), torch.zeros_like(raw_DK[:, 0]))

    def metrics(self, raw_DK: torch.Tensor) -> dict[str, Metric]:
        """Mean and deviation of each reward over a step, as it gave them."""
        n = len(raw_DK)
        found: dict[str, Metric] = {}
        for k, term in enumerate(self.terms) if self.told_apart else ():
            found[f"rewards/{term.label}/mean"] = (raw_DK[:, k].sum(), float(n))
            found[f"rewards/{term.label}/std"] = (raw_DK[:, k].std() if n > 1 else 0.0, 1.0)
        return found

    def held_out_metrics(self, raw_DK: torch.Tensor) -> dict[str, float]:
        """The mean of each reward on held-out prompts with its standard error."""
        found: dict[str, float] = {}
        for k, term in enumerate(self.terms) if self.told_apart else ():
            name = f"eval_rewards/{term.label}/mean"
            found[name], found[f"{name}_standard_error"] = mean_and_error(raw_DK[:, k].tolist())
        return found

    def in_words(self, raw_K: torch.Tensor) -> dict[str, float]:
        """What each reward gave to one completion, by its label, for a sample."""
        if not self.told_apart:
            return {}
        return {term.label: raw for term, raw in zip(self.terms, raw_K.tolist(), strict=True)}
