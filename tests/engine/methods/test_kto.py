"""KTO: the baseline is the step's, partners are other prompts' answers, and what is logged is what is defined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.labelled_examples import LabelledExample, MismatchedPairs
from engine.methods.kto import KahnemanTverskyOptimisation, KtoSettings, LabelledData
from engine.methods.method import ExampleOrder, Meter
from engine.methods.preference import pair_log_probs
from engine.model.adapters import POLICY, REFERENCE
from engine.objectives.kto import kto_loss
from tests.engine.methods.test_preference import roles_of

CPU = torch.device("cpu")


def examples(*labels: bool) -> list[LabelledExample]:
    draw = torch.Generator().manual_seed(3)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, 300, (n,), generator=draw).tolist())

    return [
        LabelledExample(str(i), ids(3 + i % 3), ids(4 + 2 * (i % 4)), label, 1.0, str(i))
        for i, label in enumerate(labels)
    ]


def method_over(folder: Path, train: list[LabelledExample], *, batch_size: int, budget: int) -> Any:
    roles = roles_of(folder)
    pairs = MismatchedPairs(train, seed=5, max_length=64)
    reference = pair_log_probs(roles, REFERENCE, pairs, budget=4096, device=CPU, check=lambda: None)
    data = LabelledData(train, pairs, reference)
    order = ExampleOrder(len(train), batch_size=batch_size, epochs=1, steps=0, seed=0)
    return KahnemanTverskyOptimisation(
        roles, data, data, order, KtoSettings(0.5, 1.2, 0.8), tokens_per_micro_batch=budget, device=CPU
    )


def outcome(method: Any, step: int) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    (update,) = list(method.updates(step))
    meter, total = Meter(), 0.0
    for run in update.micro_batches:
        terms = run()
        loss = terms.losses["examples"] / update.counts["examples"]
        loss.backward()
        meter.add(terms.metrics)
        total += loss.item()
    meter.add(method.step_metrics())
    return total, {name: p.grad for name, p in method._roles.trainable.items()}, meter.read()


def test_the_loss_is_the_equation_with_the_baseline_of_the_whole_step(tiny_model_folder: Path) -> None:
    train = examples(True, False, False, True, True)
    method = method_over(tiny_model_folder, train, batch_size=5, budget=4096)
    pairs = method._train.pairs
    moved_P2 = pair_log_probs(method._roles, POLICY, pairs, budget=4096, device=CPU, check=lambda: None)
    moved_P2 = moved_P2 - method._train.reference_P2
    z0 = moved_P2[:, 1].mean().clamp(min=0)
    labels = torch.tensor([e.desirable for e in train])
    expected = kto_loss(moved_P2[:, 0], labels, z0, beta=0.5, desirable_weight=1.2, undesirable_weight=0.8).mean()
    loss, _, metrics = outcome(method, 0)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert metrics["kl"] == pytest.approx(z0.item(), abs=1e-5)
    chosen, rejected = 0.5 * moved_P2[labels, 0].mean().item(), 0.5 * moved_P2[~labels, 0].mean().item()
    assert metrics["rewards/chosen"] == pytest.approx(chosen, rel=1e-4)
    assert metrics["rewards/rejected"] == pytest.approx(rejected, rel=1e-4)
    assert metrics["rewards/margins"] == pytest.approx(chosen - rejected, rel=1e-4)
    held_out = method.evaluate(lambda: None)
    assert held_out["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert held_out["eval_kl"] == pytest.approx(metrics["kl"], abs=1e-5)
    assert held_out["eval_rewards/margins"] == pytest.approx(chosen - rejected, rel=1e-4)


def test_micro_batches_change_nothing(tiny_model_folder: Path) -> None:
    train = examples(True, False, False, True, True)
    whole = outcome(method_over(tiny_model_folder, train, batch_size=5, budget=4096), 0)
    for budget in (1, 22):
        loss, gradients, metrics = outcome(method_over(tiny_model_folder, train, batch_size=5, budget=budget), 0)
        assert loss == pytest.approx(whole[0], rel=1e-5)
        assert metrics == pytest.approx(whole[2], rel=1e-4, abs=1e-5)
        for key, gradient in gradients.items():
            assert torch.allclose(gradient, whole[1][key], rtol=1e-3, atol=1e-6), key


def test_a_last_step_of_one_example_has_a_partner_and_no_margin(tiny_model_folder: Path) -> None:
    method = method_over(tiny_model_folder, examples(True, True, False), batch_size=2, budget=4096)
    assert method.total_steps == 2
    _, _, metrics = outcome(method, 1)
    assert "kl" in metrics
    assert "rewards/margins" not in metrics


class TestPartners:
    def test_everyone_has_one_of_another_prompt_and_the_same_each_time(self) -> None:
        train = [LabelledExample(str(i), (5,), (i, 7), i % 2 == 0, 1.0, str(i // 2)) for i in range(40)]
        pairs = MismatchedPairs(train, seed=1, max_length=64)
        partners = [pairs.partner(i) for i in range(40)]
        assert all(train[other].group != train[i].group for i, other in enumerate(partners))
        assert partners == [MismatchedPairs(train, seed=1, max_length=64).partner(i) for i in range(40)]
        assert partners != [MismatchedPairs(train, seed=2, max_length=64).partner(i) for i in range(40)]
        assert pairs[3].chosen == (3, 7)
        assert pairs[3].rejected == (partners[3], 7)
        assert [pair.id for pair in pairs[1:3]] == ["1", "2"]

    def test_one_prompt_alone_still_has_other_answers(self) -> None:
        train = [LabelledExample(str(i), (5,), (i,), True, 1.0, "same") for i in range(3)]
        pairs = MismatchedPairs(train, seed=1, max_length=64)
        assert all(pairs.partner(i) != i for i in range(3))

    def test_what_does_not_fit_behind_the_prompt_is_cut(self) -> None:
        train = [
            LabelledExample("a", (1,) * 6, (2,), True, 1.0, "a"),
            LabelledExample("b", (1,), (3,) * 9, False, 1.0, "b"),
        ]
        assert len(MismatchedPairs(train, seed=1, max_length=10)[0].rejected) == 4
