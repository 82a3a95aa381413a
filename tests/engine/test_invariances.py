"""What must not change the loss and its gradients: how an update is cut into micro-batches, and how full each is."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.data.examples import PreferenceExample
from engine.data.sft_examples import SftExample
from engine.methods.method import ExampleOrder, Method
from engine.methods.preference import PairObjective, PreferenceOptimisation
from engine.methods.reward import RewardModelling
from engine.methods.sft import SupervisedFineTuning
from engine.model.adapters import POLICY, REWARD, RoleModel, build_roles
from engine.model.heads import ScalarHead
from engine.objectives.preference import LossSettings
from tests.engine.run_maker import make_run
from tests.engine.test_training_runs import run

CPU = torch.device("cpu")
EXAMPLES = 8
WHOLE = 10_000
CUTS = {"in two": 170, "in four": 90, "unevenly": 61, "one example each": 1}
"""Tokens a micro-batch. The examples have 8 to 45 tokens, pairs twice that and more."""


def tokens(draw: random.Random, least: int, most: int) -> tuple[int, ...]:
    return tuple(draw.randrange(4, 300) for _ in range(draw.randint(least, most)))


def sft(roles: RoleModel, budget: int) -> Method:
    draw = random.Random(1)
    rows = []
    for i in range(EXAMPLES):
        ids = tokens(draw, 8, 45)
        rows.append(SftExample(str(i), ids, (*(t > 2 and draw.random() < 0.6 for t in range(len(ids) - 1)), True)))
    return SupervisedFineTuning(roles, rows, [], order(), tokens_per_micro_batch=budget, device=CPU)


def pairs() -> list[PreferenceExample]:
    draw = random.Random(2)
    return [
        PreferenceExample(
            str(i), tokens(draw, 3, 9), tokens(draw, 1, 30), tokens(draw, 1, 30), draw.choice([0.5, 1.0]), 0.3, str(i)
        )
        for i in range(EXAMPLES)
    ]


def reward(roles: RoleModel, budget: int) -> Method:
    head = ScalarHead(roles.hidden_size, seed=1)
    return RewardModelling(
        roles, head, pairs(), [], order(), center_coef=0.1, tokens_per_micro_batch=budget, device=CPU
    )


def dpo(roles: RoleModel, budget: int) -> Method:
    reference_P2 = -40.0 * torch.rand(EXAMPLES, 2, generator=torch.Generator().manual_seed(3))
    return PreferenceOptimisation(
        roles, pairs(), [], order(), objective=PairObjective("sigmoid", LossSettings(0.1), sft_coef=0.5),
        reference=(reference_P2, reference_P2[:0]), tokens_per_micro_batch=budget, device=CPU,
    )  # fmt: skip


def order() -> ExampleOrder:
    return ExampleOrder(EXAMPLES, batch_size=EXAMPLES, epochs=1, steps=0, seed=4)


def loss_and_gradients(method: Method, parameters: dict[str, torch.nn.Parameter]) -> tuple[float, dict[str, Any], int]:
    """Of the first update, summed up over its micro-batches as the loop does; and how many those were."""
    for parameter in parameters.values():
        parameter.grad = None
    (update,) = method.updates(0)
    total = 0.0
    for forward in update.micro_batches:
        terms = forward()
        loss = torch.stack([terms.losses[key] / update.counts[key] for key in terms.losses]).sum()
        loss.backward()
        total += loss.item()
    return total, {name: p.grad for name, p in parameters.items() if p.grad is not None}, len(update.micro_batches)


@pytest.mark.parametrize("make", [sft, reward, dpo])
def test_the_cut_into_micro_batches_changes_nothing(tiny_model: Any, make: Callable[[RoleModel, int], Method]) -> None:
    role = REWARD if make is reward else POLICY
    roles = build_roles(tiny_model, kind="full", trained=role, start_adapter=None)
    whole = make(roles, WHOLE)
    parameters = dict(roles.trainable)
    for name, module in whole.modules().items():
        parameters.update({f"{name}.{key}": value for key, value in module.named_parameters()})
    loss, gradients, count = loss_and_gradients(whole, parameters)
    assert count == 1
    assert gradients
    counts = []
    for budget in CUTS.values():
        cut = make(roles, budget)
        for name, module in cut.modules().items():
            parameters.update({f"{name}.{key}": value for key, value in module.named_parameters()})
        other_loss, other_gradients, number = loss_and_gradients(cut, parameters)
        counts.append(number)
        assert other_loss == pytest.approx(loss, rel=1e-6)
        assert other_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-4, atol=1e-6)
    assert counts[0] >= 2
    assert counts[-1] == EXAMPLES


def test_full_fine_tuning_in_bf16_keeps_what_bf16_would_round_away(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / "fine", "sft", tiny_model_folder,
        adapter__kind="full", train__precision="bf16", train__steps=1, optim__lr=1e-7, optim__schedule="constant",
    )  # fmt: skip
    run(folder)
    before = load_file(tiny_model_folder / "model.safetensors")
    after = load_file(folder.checkpoint_path(1) / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert after[name].dtype == torch.float32
    moved = (after[name] - before[name]).abs()
    # AdamW's first step is the learning rate; weights of 0.3 are 1e-3 apart in bf16.
    assert moved.mean().item() == pytest.approx(1e-7, rel=0.2)
