"""PPO's rollouts: scores, advantages and returns against their definitions, and draws that differ from step to step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.chat import ChatTokenizer
from engine.data.examples import PromptExample
from engine.methods import ppo
from engine.methods.method import ExampleOrder
from engine.methods.ppo import ProximalPolicyOptimisation
from engine.methods.rollout import RolloutBatch, rollout_seeds
from engine.model.adapters import POLICY, REWARD, build_roles
from engine.model.heads import ScalarHead
from engine.model.saving import save_weights
from engine.run.config import PpoConfig

SETTINGS = PpoConfig(max_new_tokens=6, minibatches=3, epochs=2, kl_coef=0.3, lam=0.7, missing_eos_penalty=0.5)
MEAN, STD = 0.4, 2.0


@pytest.fixture
def batches(
    tiny_model_folder: Path, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[RolloutBatch], ProximalPolicyOptimisation, list[Any]]:
    """One step of PPO on a policy that has left its reference: its measured rollouts, its method, its updates."""
    from engine.model.loading import load_causal_lm

    judge = build_roles(tiny_model, kind="lora", trained=REWARD, start_adapter=None, rank=4)
    head = ScalarHead(32, seed=3)
    save_weights(judge, tmp_path, base_folder=tiny_model_folder, reward_head=head)
    base = load_causal_lm(tiny_model_folder, dtype=torch.float32, device="cpu")
    roles = build_roles(base, kind="lora", trained=POLICY, start_adapter=None, rank=4, reward_adapter=tmp_path)
    with torch.no_grad():
        for parameter in roles.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    captured: list[RolloutBatch] = []
    measure = ppo.measure

    def capture(*arguments: Any, **options: Any) -> list[RolloutBatch]:
        found = measure(*arguments, **options)
        captured.extend(found)
        return found

    monkeypatch.setattr(ppo, "measure", capture)
    prompts = [PromptExample(f"p{i}", (10 + i, 20, 30 + i), f"prompt {i}") for i in range(8)]
    method = ProximalPolicyOptimisation(
        roles, head, MEAN, STD, prompts, [],
        ExampleOrder(8, batch_size=8, epochs=1, steps=2, seed=1), ChatTokenizer.from_folder(tiny_model_folder),
        SETTINGS, seed=1, tokens_per_micro_batch=30, device=torch.device("cpu"),
        check=lambda: None, on_samples=lambda step, rows: None,
    )  # fmt: skip
    updates = [(dict(u.counts), len(u.micro_batches)) for u in method.updates(0)]
    return captured, method, updates


def test_advantages_and_returns_follow_their_definition(batches: Any) -> None:
    captured, _, _ = batches
    raw: list[float] = []
    for b in captured:
        start = 0
        for d, length in enumerate(b.batch.targets_per_document):
            part = slice(start, start + length)
            kl = (b.log_probs_N - b.reference_N)[part]
            rewards = -SETTINGS.kl_coef * kl
            rewards[-1] += b.score_D[d]
            values = torch.cat([b.values_N[part], torch.zeros(1)])
            delta = [float(rewards[t] + values[t + 1] - values[t]) for t in range(length)]
            found = [sum(SETTINGS.lam ** (k - t) * delta[k] for k in range(t, length)) for t in range(length)]
            assert torch.allclose(b.returns_N[part], torch.tensor(found) + values[:-1], atol=1e-5)
            raw += found
            start += length
    whole = torch.tensor(raw)
    expected = (whole - whole.mean()) / whole.std()
    assert torch.allclose(torch.cat([b.advantages_N for b in captured]), expected, atol=1e-4)


def test_scores_are_normalised_and_a_missing_end_costs(batches: Any) -> None:
    captured, method, _ = batches
    cut_off = []
    for b in captured:
        judged = method._roles.hidden(b.batch, REWARD)[b.batch.last_rows_D]
        raw = method._reward_head(judged)
        stops = b.batch.ids_T[b.batch.last_rows_D]
        missing = torch.tensor([0.0 if int(i) in method._tokenizer.stop_ids else 1.0 for i in stops])
        cut_off += missing.tolist()
        assert torch.allclose(b.score_D, (raw - MEAN) / STD - SETTINGS.missing_eos_penalty * missing, atol=1e-5)
    assert 1.0 in cut_off


def test_the_value_head_begins_as_the_normalised_reward(batches: Any) -> None:
    captured, method, _ = batches
    b = captured[0]
    assert torch.allclose(b.values_N, (method._reward_head(b.features_NH) - MEAN) / STD, atol=1e-5)


def test_every_mini_batch_has_its_own_exact_count(batches: Any) -> None:
    captured, _, updates = batches
    tokens = [sum(len(b.batch.targets_N) for b in captured if b.mini_batch == k) for k in range(3)]
    assert [counts["tokens"] for counts, _ in updates[:3]] == tokens
    assert sorted(counts["tokens"] for counts, _ in updates[3:]) == sorted(map(float, tokens))
    assert sum(micro_batches for _, micro_batches in updates) == 2 * len(captured)


def test_draws_differ_from_step_to_step_and_repeat_on_a_resume() -> None:
    assert rollout_seeds(1, 4, 3) == rollout_seeds(1, 4, 3)
    assert not set(rollout_seeds(1, 4, 3)) & set(rollout_seeds(1, 5, 3))
    assert len(set(rollout_seeds(1, 4, 3))) == 3
