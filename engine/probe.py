"""The sampled KL: one quantity for every method that changes a policy.

KL(policy || reference) over completions that the *current* policy samples, at temperature 1, for a fixed set of probe
prompts: the k1 estimator, log p_policy - log p_reference summed over each completion, averaged over completions, in
nats per sequence, with its standard error over prompts. The per-token figure divides the same sum by the number of
sampled tokens. Both sides are scored by the training forward, so an untouched policy gives exactly 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.data.chat import ChatTokenizer
from engine.data.examples import PromptExample
from engine.data.packing import Document, fill_by_token_budget, pack
from engine.methods.method import mean_and_error, seed_of
from engine.methods.rollout import sample_policy
from engine.model.adapters import REFERENCE, RoleModel
from engine.model.sampler import Completion
from engine.run.config import ProbeConfig

PER_SEQUENCE = "kl/policy_reference_nats_per_sequence"
PER_TOKEN = "kl/policy_reference_nats_per_token"
STANDARD_ERROR = "kl/policy_reference_standard_error"
SAMPLES_KEPT = 16


@dataclass(frozen=True)
class ProbeReading:
    """What one probe found."""

    metrics: dict[str, float]
    samples: list[dict[str, Any]]
    """Rows for samples.jsonl."""


class Probe:
    """A fixed set of prompts, answered by the current policy each time it is asked."""

    def __init__(
        self,
        roles: RoleModel,
        prompts: Sequence[PromptExample],
        tokenizer: ChatTokenizer,
        settings: ProbeConfig,
        *,
        tokens_per_micro_batch: int,
        device: torch.device,
    ) -> None:
        self._roles = roles
        self._prompts = choose_prompts(prompts, settings.prompts, settings.seed)
        self._tokenizer = tokenizer
        self._settings = settings
        self._budget = tokens_per_micro_batch
        self._device = device

    @property
    def size(self) -> int:
        """How many prompts are asked."""
        return len(self._prompts)

    def read(self, check: Callable[[], None]) -> ProbeReading:
        """Sample, score under policy and reference, and sum up. `check` may raise StopRequested."""
        started = time.monotonic()
        check()
        completions = sample_policy(
            self._roles,
            self._prompts,
            max_new_tokens=self._settings.max_new_tokens,
            temperature=self._settings.temperature,
            stop_ids=self._tokenizer.stop_ids,
            pad_id=self._tokenizer.pad_id,
            seeds=[seed_of(self._settings.seed, "probe", p.id) for p in self._prompts],
        )
        logratios = self._logratios(completions, check)
        sums = [sum(row) for row in logratios]
        mean, error = mean_and_error(sums)
        metrics = {
            PER_SEQUENCE: mean,
            PER_TOKEN: sum(sums) / sum(len(row) for row in logratios),
            STANDARD_ERROR: error,
            "probe/completion_length": sum(len(c.ids) for c in completions) / len(completions),
            "probe/seconds": time.monotonic() - started,
        }
        return ProbeReading(metrics, self._rows(completions, logratios))

    def _logratios(self, completions: Sequence[Completion], check: Callable[[], None]) -> list[list[float]]:
        """log p_policy - log p_reference of each sampled token, in nats, completion by completion."""
        documents = [Document.completion(p.prompt, c.ids) for p, c in zip(self._prompts, completions, strict=True)]
        out: list[list[float]] = [[] for _ in documents]
        temperature = self._settings.temperature
        with torch.no_grad():
            for group in fill_by_token_budget([len(d.ids) for d in documents], self._budget):
                check()
                batch = pack([documents[i] for i in group], self._device)
                policy, _ = self._roles.scores(batch, self._roles.trained, temperature=temperature)
                reference, _ = self._roles.scores(batch, REFERENCE, temperature=temperature)
                parts = (policy.log_probs_N - reference.log_probs_N).split(list(batch.targets_per_document))
                for i, part in zip(group, parts, strict=True):
                    out[i] = part.tolist()
        return out

    def _rows(self, completions: Sequence[Completion], logratios: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
        return [
            {
                "prompt_id": prompt.id,
                "prompt": prompt.text,
                "completion": self._tokenizer.decode(completion.ids),
                "logratio": [round(x, 5) for x in row],
                "length": len(completion.ids),
                "stopped": completion.stopped,
            }
            for prompt, completion, row in zip(
                self._prompts[:SAMPLES_KEPT], completions[:SAMPLES_KEPT], logratios[:SAMPLES_KEPT], strict=True
            )
        ]


def choose_prompts(prompts: Sequence[PromptExample], count: int, seed: int) -> list[PromptExample]:
    """`count` distinct prompts, the same for every run that shares the prompts and the seed."""
    distinct = {tuple(p.prompt): p for p in reversed(prompts)}
    ranked = sorted(distinct.values(), key=lambda p: (seed_of(seed, "choose", p.text), p.id))
    return ranked[:count]
