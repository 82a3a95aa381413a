"""The sampled KL: one quantity for every method that changes a policy.

KL(policy || reference) over completions that the *current* policy samples, at temperature 1, for a fixed set of probe
prompts: the k1 estimator, log p_policy - log p_reference summed over each completion, averaged over completions, in
nats per sequence, with its standard error over prompts. The per-token figure divides the same sum by the number of
sampled tokens. Both sides are scored by the training forward, so an untouched policy gives exactly 0.

The first prompts are answered greedily, too: no figure is made of those answers, they are there to be read, since they
differ from probe to probe by the policy alone.
"""

from __future__ import annotations

import hashlib
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.data.chat import ChatTokenizer
from engine.data.examples import PromptExample
from engine.data.packing import Document, pack
from engine.data.token_places import token_ends
from engine.methods.method import mean_and_error, seed_of
from engine.methods.rollout import sample_policy
from engine.methods.shared_rollouts import sampled_together
from engine.model.adapters import REFERENCE, RoleModel
from engine.model.sampler import Completion
from engine.ranks import balanced_groups, own_share, words_of_all
from engine.run.config import ProbeConfig

PER_SEQUENCE = "kl/policy_reference_nats_per_sequence"
PER_TOKEN = "kl/policy_reference_nats_per_token"
STANDARD_ERROR = "kl/policy_reference_standard_error"
PROBE_SECONDS = "probe/seconds"
SAMPLES_KEPT = 16
"""Prompts whose sampled answers are kept, and that are answered greedily."""


@dataclass(frozen=True)
class ProbeReading:
    """What one probe found."""

    metrics: dict[str, float]
    samples: dict[str, list[dict[str, Any]]]
    """Rows for samples.jsonl, by source: "probe" holds the sampled answers, "greedy" the most likely ones."""


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
        completions = self._answers(self._prompts, self._settings.temperature)
        logratios = self._logratios(completions, check)
        check()
        greedy = self._answers(self._prompts[:SAMPLES_KEPT], 0.0)
        sums = [sum(row) for row in logratios]
        mean, error = mean_and_error(sums)
        metrics = {
            PER_SEQUENCE: mean,
            PER_TOKEN: sum(sums) / sum(len(row) for row in logratios),
            STANDARD_ERROR: error,
            "probe/completion_length": sum(len(c.ids) for c in completions) / len(completions),
            PROBE_SECONDS: time.monotonic() - started,
        }
        sampled = self._rows(completions[:SAMPLES_KEPT])
        for row, ratios, completion in zip(sampled, logratios, completions, strict=False):
            row["logratio"] = [round(x, 5) for x in ratios]
            row["ends"] = token_ends(self._tokenizer.decode, completion.ids, row["completion"])
        return ProbeReading(metrics, {"probe": sampled, "greedy": self._rows(greedy)})

    def _answers(self, prompts: Sequence[PromptExample], temperature: float) -> list[Completion]:
        """One completion a prompt; processes that train together share out the prompts."""

        def sample(mine: list[int]) -> list[Completion]:
            return sample_policy(
                self._roles,
                [prompts[i] for i in mine],
                max_new_tokens=self._settings.max_new_tokens,
                temperature=temperature,
                stop_ids=self._tokenizer.stop_ids,
                pad_id=self._tokenizer.pad_id,
                seeds=[seed_of(self._settings.seed, "probe", prompts[i].id) for i in mine],
            )

        return sampled_together(len(prompts), sample)

    def _logratios(self, completions: Sequence[Completion], check: Callable[[], None]) -> list[list[float]]:
        """log p_policy - log p_reference of each sampled token, in nats, completion by completion."""
        documents = [Document.completion(p.prompt, c.ids) for p, c in zip(self._prompts, completions, strict=True)]
        out: list[list[float]] = [[] for _ in documents]
        temperature = self._settings.temperature
        with torch.no_grad():
            for group in own_share(balanced_groups([len(d.ids) for d in documents], self._budget)):
                check()
                if not group:
                    continue
                batch = pack([documents[i] for i in group], self._device)
                policy, _ = self._roles.scores(batch, self._roles.trained, temperature=temperature)
                reference, _ = self._roles.scores(batch, REFERENCE, temperature=temperature)
                parts = (policy.log_probs_N - reference.log_probs_N).split(list(batch.targets_per_document))
                for i, part in zip(group, parts, strict=True):
                    out[i] = part.tolist()
        # Each row was measured by one process and is empty in the others.
        return [max(rows, key=len) for rows in zip(*words_of_all(out), strict=True)]

    def _rows(self, completions: Sequence[Completion]) -> list[dict[str, Any]]:
        return [
            {
                "prompt_id": prompt.id,
                "prompt": prompt.text,
                "completion": self._tokenizer.decode(completion.ids),
                "length": len(completion.ids),
                "stopped": completion.stopped,
            }
            for prompt, completion in zip(self._prompts, completions, strict=False)
        ]


def choose_prompts(prompts: Sequence[PromptExample], count: int, seed: int) -> list[PromptExample]:
    """`count` distinct prompts, the same for every run that shares the prompts and the seed."""
    seen: set[bytes] = set()

    def distinct() -> Iterator[tuple[int, str, int]]:
        for place, prompt in enumerate(prompts):
            digest = hashlib.sha256(repr(prompt.prompt).encode()).digest()
            if digest not in seen:
                seen.add(digest)
                yield seed_of(seed, "choose", prompt.text), prompt.id, place

    # Prompts may lie on the disk, hundreds of thousands of them: only the chosen ones are kept.
    return [prompts[place] for _, _, place in heapq.nsmallest(count, distinct())]
