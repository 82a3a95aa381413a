"""The sampled KL against the exact divergence, where it can be enumerated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.chat import ChatTokenizer
from engine.data.examples import PromptExample
from engine.data.packing import Document, pack
from engine.model.adapters import POLICY, REFERENCE, RoleModel, build_roles
from engine.probe import PER_SEQUENCE, PER_TOKEN, STANDARD_ERROR, Probe, choose_prompts
from engine.run.config import ProbeConfig

CPU = torch.device("cpu")


def prompts(count: int) -> list[PromptExample]:
    return [PromptExample(f"p{i}", (10 + i % 200, 20 + i // 200, 30), f"prompt {i}") for i in range(count)]


def shaken(model: Any) -> RoleModel:
    roles = build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in roles.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return roles


def probe_on(roles: RoleModel, asked: list[PromptExample], folder: Path, *, max_new_tokens: int) -> Probe:
    """A probe that asks all of `asked`, in more than one micro-batch."""
    settings = ProbeConfig(prompts=len(asked), max_new_tokens=max_new_tokens)
    tokenizer = ChatTokenizer.from_folder(folder)
    return Probe(roles, asked, tokenizer, settings, tokens_per_micro_batch=4 * len(asked), device=CPU)


def exact_first_token_kl(roles: RoleModel, prompt: PromptExample) -> float:
    """KL of the next-token distributions after the prompt, in nats, summed over the whole vocabulary."""
    ids = torch.tensor([list(prompt.prompt)])
    logs = []
    for role in (POLICY, REFERENCE):
        with roles.use(role) as model, torch.no_grad():
            logs.append(model(ids).logits[0, -1].double().log_softmax(-1))
    return float((logs[0].exp() * (logs[0] - logs[1])).sum())


@pytest.mark.slow
def test_one_token_answers_agree_with_the_exact_divergence(tiny_model: Any, tiny_model_folder: Path) -> None:
    roles = shaken(tiny_model)
    asked = prompts(600)
    probe = probe_on(roles, asked, tiny_model_folder, max_new_tokens=1)
    reading = probe.read(lambda: None)
    exact = sum(exact_first_token_kl(roles, prompt) for prompt in asked) / len(asked)
    error = reading.metrics[STANDARD_ERROR]
    assert exact > 5 * error > 0
    assert abs(reading.metrics[PER_SEQUENCE] - exact) < 3 * error
    assert reading.metrics[PER_TOKEN] == reading.metrics[PER_SEQUENCE]


def test_samples_carry_the_log_ratio_of_each_token(tiny_model: Any, tiny_model_folder: Path) -> None:
    roles = shaken(tiny_model)
    asked = prompts(4)
    probe = probe_on(roles, asked, tiny_model_folder, max_new_tokens=6)
    first, again = probe.read(lambda: None), probe.read(lambda: None)
    assert first.samples == again.samples
    sampled = first.samples["probe"]
    assert len(sampled) == 4
    sums = [sum(row["logratio"]) for row in sampled]
    assert abs(sum(sums) / 4 - first.metrics[PER_SEQUENCE]) < 1e-3
    assert all(len(row["logratio"]) == row["length"] for row in sampled)


def test_greedy_answers_are_the_most_likely_tokens(tiny_model: Any, tiny_model_folder: Path) -> None:
    roles = shaken(tiny_model)
    asked = prompts(20)
    greedy = probe_on(roles, asked, tiny_model_folder, max_new_tokens=1).read(lambda: None).samples["greedy"]
    assert [row["prompt_id"] for row in greedy] == [p.id for p in choose_prompts(asked, 16, seed=7)]
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    for row, prompt in zip(greedy, choose_prompts(asked, 16, seed=7), strict=True):
        with roles.use(POLICY) as model, torch.no_grad():
            likeliest = int(model(torch.tensor([list(prompt.prompt)])).logits[0, -1].argmax())
        assert row["completion"] == tokenizer.decode([likeliest])
        assert "logratio" not in row


def test_prompts_are_distinct_and_the_same_for_every_run() -> None:
    asked = prompts(30)
    chosen = choose_prompts([*asked, *asked], 8, seed=7)
    assert len({p.prompt for p in chosen}) == 8
    assert choose_prompts(asked[::-1], 8, seed=7) == chosen
    assert choose_prompts(asked, 8, seed=8) != chosen


def test_an_untouched_policy_has_no_divergence(tiny_model: Any) -> None:
    roles = build_roles(tiny_model, kind="lora", trained=POLICY, start_adapter=None, rank=4)
    batch = pack([Document.completion([10, 11], [12, 13, 14])])
    policy, reference = (roles.scores(batch, role)[0].log_probs_N for role in (POLICY, REFERENCE))
    assert torch.equal(policy, reference)
