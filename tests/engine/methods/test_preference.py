"""Preference methods as a source of updates: split, weighted and mixed as the equation says, whatever the packing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.examples import PreferenceExample
from engine.methods.method import ExampleOrder, Meter
from engine.methods.preference import PairObjective, PreferenceOptimisation, pair_log_probs
from engine.model.adapters import POLICY, REFERENCE, RoleModel, build_roles
from engine.objectives.preference import LOSSES, LossSettings
from engine.preference_parts import pair_objective
from engine.run.config_layers import parse_set, resolve

CPU = torch.device("cpu")
OBJECTIVES = {
    "dpo": ("dpo", "beta=0.3"),
    "dpo, ipo": ("dpo", "loss=ipo"),
    "dpo, with sft": ("dpo", "sft_coef=0.5"),
    "simpo": ("simpo", "gamma=0.5"),
    "cpo": ("cpo", "beta=0.2"),
    "orpo": ("orpo", "beta=0.5"),
    "orpo, nll on all": ("orpo", "nll_on=all"),
}


def objective_of(name: str) -> PairObjective:
    method, *changes = OBJECTIVES[name]
    return pair_objective(resolve(method, [("--set", parse_set(text, method)) for text in changes]).config)


def examples(*weights: float) -> list[PreferenceExample]:
    draw = torch.Generator().manual_seed(3)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, 300, (n,), generator=draw).tolist())

    return [
        PreferenceExample(str(i), ids(3 + i), ids(4 + 2 * i), ids(7 - i), weight, None, str(i))
        for i, weight in enumerate(weights)
    ]


def roles_of(folder: Path) -> RoleModel:
    """A LoRA policy that has already moved away from its reference."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    roles = build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=4, alpha=8)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in roles.trainable.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return roles


def outcome(
    folder: Path, objective: PairObjective, pairs: list[PreferenceExample], budget: int
) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradients and metrics of one step over all pairs."""
    roles = roles_of(folder)
    order = ExampleOrder(len(pairs), batch_size=len(pairs), epochs=1, steps=1, seed=0)
    reference = pair_log_probs(roles, REFERENCE, pairs, budget=4096, device=CPU, check=lambda: None)
    method = PreferenceOptimisation(
        roles, pairs, pairs, order, objective=objective, reference=(reference, reference),
        tokens_per_micro_batch=budget, device=CPU,
    )  # fmt: skip
    (update,) = list(method.updates(0))
    meter, total = Meter(), 0.0
    for run in update.micro_batches:
        terms = run()
        loss = torch.stack([terms.losses[key] / update.counts[key] for key in terms.losses]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        meter.add(terms.metrics)
        total += loss.item()
    held_out = method.evaluate(lambda: None)
    gradients = {name: p.grad for name, p in roles.trainable.items() if p.grad is not None}
    return total, gradients, {**meter.read(), **held_out}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_and_packing_change_nothing(tiny_model_folder: Path, name: str) -> None:
    objective, pairs = objective_of(name), examples(1.0, 0.5, 2.0, 1.0, 0.25)
    whole = outcome(tiny_model_folder, objective, pairs, 4096)
    for budget in (1, 60):  # each pair alone; uneven groups
        loss, gradients, metrics = outcome(tiny_model_folder, objective, pairs, budget)
        assert loss == pytest.approx(whole[0], rel=1e-5)
        for key, gradient in gradients.items():
            assert torch.allclose(gradient, whole[1][key], rtol=1e-3, atol=1e-5), key
        assert metrics == pytest.approx(whole[2], rel=1e-4, abs=1e-5, nan_ok=True)


def test_what_is_held_out_is_measured_by_the_whole_objective(tiny_model_folder: Path) -> None:
    # Held-out pairs are the training pairs here, and nothing has been trained between the two.
    pairs = examples(1.0, 0.5, 2.0, 1.0)
    for name in OBJECTIVES:
        loss, _, metrics = outcome(tiny_model_folder, objective_of(name), pairs, 4096)
        assert metrics["eval_loss"] == pytest.approx(loss, rel=1e-5), name
        for key in ("nll_loss", "preference_loss", "rewards/margins", "logps/chosen"):
            if key in metrics:
                assert metrics[f"eval_{key}"] == pytest.approx(metrics[key], rel=1e-5), (name, key)


def test_a_pair_of_weight_two_counts_as_two_pairs(tiny_model_folder: Path) -> None:
    objective = objective_of("dpo")
    first, second, third = examples(1.0, 1.0, 1.0)
    twice = outcome(tiny_model_folder, objective, [first, second, second, third], 4096)
    heavy = outcome(tiny_model_folder, objective, [first, examples(1.0, 2.0)[1], third], 4096)
    assert heavy[0] == pytest.approx(twice[0], rel=1e-6)
    for key, gradient in heavy[1].items():
        assert torch.allclose(gradient, twice[1][key], rtol=1e-3, atol=1e-6)


def test_metrics_by_their_definitions(tiny_model_folder: Path) -> None:
    pairs, roles = examples(1.0, 1.0, 1.0), roles_of(tiny_model_folder)
    policy_P2, reference_P2 = (
        pair_log_probs(roles, role, pairs, budget=4096, device=CPU, check=lambda: None) for role in (POLICY, REFERENCE)
    )
    moved_P2 = policy_P2 - reference_P2
    _, _, dpo = outcome(tiny_model_folder, objective_of("dpo"), pairs, 4096)
    assert dpo["logratio/chosen"] == pytest.approx(moved_P2[:, 0].mean().item(), rel=1e-4)
    tokens = sum(len(pair.chosen) for pair in pairs)
    assert dpo["displacement/chosen"] == pytest.approx(moved_P2[:, 0].sum().item() / tokens, rel=1e-4)
    assert dpo["rewards/margins"] == pytest.approx(0.3 * (moved_P2[:, 0] - moved_P2[:, 1]).mean().item(), rel=1e-4)
    tokens_P2 = torch.tensor([(len(pair.chosen), len(pair.rejected)) for pair in pairs])
    expected = LOSSES["ipo"](*(moved_P2 / tokens_P2).unbind(1), LossSettings(0.1)).mean().item()
    loss, _, _ = outcome(tiny_model_folder, objective_of("dpo, ipo"), pairs, 4096)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_without_a_reference_nothing_is_asked_of_one(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, asked = examples(1.0, 1.0), []
    roles = roles_of(tiny_model_folder)
    scores = RoleModel.scores

    def listen(self: RoleModel, batch: Any, role: str, **options: Any) -> Any:
        asked.append(role)
        return scores(self, batch, role, **options)

    monkeypatch.setattr(RoleModel, "scores", listen)
    order = ExampleOrder(2, batch_size=2, epochs=1, steps=1, seed=0)
    method = PreferenceOptimisation(
        roles, pairs, pairs, order, objective=objective_of("simpo"), reference=None, tokens_per_micro_batch=99,
        device=CPU,
    )  # fmt: skip
    for update in method.updates(0):
        for run in update.micro_batches:
            assert not {name for name in run().metrics if name.startswith(("logratio", "displacement"))}
    assert not any(name.startswith("eval_logratio") for name in method.evaluate(lambda: None))
    assert set(asked) == {POLICY}
