"""A micro-batch tells the device what to do and does not wait for it: forward, loss, metrics and backward.

The step runs on the meta device, whose tensors have shapes and no values: a number that is read there raises. What is
counted are copies to it that the host waits for: a tensor that is made there from a list, and an operation that is
handed an index of the host. The one read of a step is counted in test_pass_counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.data.labelled_examples import LabelledExample, MismatchedPairs
from engine.methods.group_rollout import measure_groups
from engine.methods.grouped import GroupPlan
from engine.methods.kto import KahnemanTverskyOptimisation, KtoSettings, LabelledData
from engine.methods.method import Method, Update
from engine.methods.rollout import measure
from engine.model.adapters import POLICY, RoleModel, build_roles
from engine.model.loading import load_causal_lm
from engine.model.sampler import Completion
from engine.objectives.advantages import generalized_advantages, shaped_rewards, whitened
from engine.run.config_grouped import GrpoConfig, RlooConfig
from engine.run.config_ppo import PpoConfig
from tests.benchmarks.training_data import Row
from tests.benchmarks.training_sides import Plan, engine_method
from tests.engine.methods.ppo_world import PROMPTS, make_grouped, make_ppo

META = torch.device("meta")
CISPO = GrpoConfig(generations=2, loss_type="cispo", clip_high=4.0)
GSPO = GrpoConfig(generations=2, loss_type="grpo", importance_level="sequence", kl_in="reward", kl_estimator="k1")
ROWS = [Row([5, 6, 7], [8, 9, 10, 11], [12, 13]), Row([14, 15], [16], [17, 18, 19, 20, 21])]


class Waits(TorchDispatchMode):
    """Notes every operation for which the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        kinds = {x.device.type for x in tensors if x.dim() > 0}
        name = str(func)
        copies = name.startswith(("aten._to_copy", "aten.copy_"))
        on_meta = any(x.device == META for x in tensors)
        if copies and (kwargs or {}).get("device") == META and not on_meta and not kwargs.get("non_blocking"):
            self.seen.append(name)
        if not copies and len(kinds) > 1:
            self.seen.append(f"{name} with {' and '.join(sorted(kinds))}")
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Waits inside the block."""
    found = Waits()
    make = torch.tensor

    def making(*args: Any, **named: Any) -> torch.Tensor:
        if str(named.get("device", "cpu")) != "cpu":
            found.seen.append("torch.tensor on the device")
        return make(*args, **named)

    monkeypatch.setattr(torch, "tensor", making)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # which does not know of meta
    with found:
        yield found


def run_update(update: Update) -> None:
    """Forward and backward of each micro-batch."""
    for run in update.micro_batches:
        terms = run()
        torch.stack([terms.losses[key] / update.counts[key] for key in terms.losses]).sum().backward()


def waits(method: Method, monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Both micro-batches of one step, forward and backward."""
    with counted(monkeypatch) as found:
        for update in method.updates(0):
            assert len(update.micro_batches) == 2
            run_update(update)
    return found


def roles_on_meta(folder: Path) -> RoleModel:
    model = load_causal_lm(folder, dtype=torch.bfloat16, device="cpu").to(META)
    return build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=2)


@pytest.mark.parametrize("method", ["sft", "reward", "dpo"])
def test_no_micro_batch_waits(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    built, order = engine_method(
        Plan(method, "bf16", 1, 2, budget=9, device=META), roles_on_meta(tiny_model_folder), ROWS, torch.zeros(2, 2)
    )
    order.steps = [[0, 1]]
    found = waits(built, monkeypatch)
    assert found.operations > 100
    assert found.seen == []


def test_nor_does_one_of_kto(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.methods.method import ExampleOrder

    examples = [
        LabelledExample(str(i), tuple(row.prompt), tuple(row.chosen), i == 0, 1.0, str(i)) for i, row in enumerate(ROWS)
    ]
    data = LabelledData(examples, MismatchedPairs(examples, seed=1, max_length=64), torch.zeros(2, 2))
    method = KahnemanTverskyOptimisation(
        roles_on_meta(tiny_model_folder), data, None, ExampleOrder(2, batch_size=2, epochs=1, steps=1, seed=1),
        KtoSettings(0.1, 1.0, 1.0), tokens_per_micro_batch=7, device=META,
    )  # fmt: skip
    assert waits(method, monkeypatch).seen == []


COMPLETIONS = [Completion([50 + i] * (2 + i % 3), i % 2 == 0, [0.0] * (2 + i % 3)) for i in range(8)]


@pytest.mark.slow
@pytest.mark.parametrize("kl_in", ["reward", "loss"])
@pytest.mark.parametrize("value_model", ["adapter", "head"])
def test_nor_does_one_of_ppo_measured_or_trained(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value_model: str, kl_in: str
) -> None:
    settings = PpoConfig(
        max_new_tokens=4, minibatches=1, value_model=value_model, kl_in=kl_in,
        kl_estimator="k1" if kl_in == "reward" else "k3_prefix", score_at="post_eos", target_kl=0.1,
    )  # fmt: skip
    method = to_meta(make_ppo(tiny_model_folder, tmp_path, settings))
    with counted(monkeypatch) as found:
        batches = measure(
            method._roles, method.value, method._rewards, PROMPTS, COMPLETIONS, torch.zeros(8, 1), mini_batches=1,
            temperature=1.0, post_eos=True, budget=30, device=META, check=lambda: None,
        )  # fmt: skip
        assert len(batches) > 1
        for b in batches:
            b.score_D = method._rules.scores(b.raw_DK, b.stopped)
            rewards_S = shaped_rewards(torch.zeros_like(b.values_S), b.score_D, b.states.last_D, kl_coef=0.1)
            advantages_S, b.returns_S = generalized_advantages(
                rewards_S, b.values_S, b.states.lengths, gamma=1.0, lam=0.9
            )
            b.advantages_N = whitened(advantages_S.index_select(0, b.states.action_N))
        run_update(method._update(batches, True, False))
    assert found.operations > 500
    assert found.seen == []


@pytest.mark.parametrize("settings", [GrpoConfig(generations=2), RlooConfig(generations=2), CISPO, GSPO])
def test_nor_does_one_of_the_grouped_methods(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: GrpoConfig | RlooConfig
) -> None:
    plan = GroupPlan.of_grpo(settings) if isinstance(settings, GrpoConfig) else GroupPlan.of_rloo(settings)
    method = to_meta(make_grouped(tiny_model_folder, tmp_path, settings, plan))
    with counted(monkeypatch) as found:
        batches = measure_groups(
            method._roles, method._rewards, PROMPTS[:4], COMPLETIONS, torch.zeros(8, 1), mini_batches=1,
            temperature=1.0, budget=20, device=META, check=lambda: None,
        )  # fmt: skip
        assert len(batches) > 1
        for b in batches:
            b.counted = [i % 2 == 0 for i in b.indices]
            b.advantages_N = method._rules.scores(b.raw_DK, b.stopped).index_select(0, b.batch.document_N)
        lengths = [length for b in batches for length in b.counted_lengths]
        counts = {"completions": plan.objective.denominator(lengths)}
        run_update(Update(counts, [partial(method._terms, b, True) for b in batches], 0))
    assert found.operations > 500
    assert found.seen == []


def to_meta(method: Any) -> Any:
    """A method that was built on the CPU, with all that its passes read on the meta device."""
    for module in (method._roles.model, method._rewards.judges[0].head, *method.modules().values()):
        module.to(META)
    method._device = META
    method._update_kl = torch.zeros((), device=META)
    return method


class Reads(TorchDispatchMode):
    """Counts the numbers that the host reads of a tensor, and lists of them, until the first update is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.lists = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.numbers += str(func).startswith(("aten._local_scalar_dense", "aten.is_nonzero"))
        return func(*args, **(kwargs or {}))

    @classmethod
    def of(cls, method: Any, budget: int) -> tuple[int, int]:
        """(numbers, lists) of a rollout whose micro-batches have so many tokens."""
        method._budget = budget
        found, tolist = cls(), torch.Tensor.tolist

        def counting(tensor: torch.Tensor) -> Any:
            found.lists += 1
            return tolist(tensor)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", counting)
            with found:
                next(method.updates(0))
        return found.numbers, found.lists


@pytest.mark.slow
def test_a_rollout_is_read_once_a_token_and_not_once_a_micro_batch(tiny_model_folder: Path, tmp_path: Path) -> None:
    ppo, grpo = PpoConfig(max_new_tokens=6), GrpoConfig(max_new_tokens=6, generations=2)

    def build(method: str) -> Any:
        if method == "ppo":
            return make_ppo(tiny_model_folder, tmp_path, ppo)
        return make_grouped(tiny_model_folder, tmp_path, grpo, GroupPlan.of_grpo(grpo))

    # The first rollout of a process asks whether the sampler's cache holds the model's past.
    Reads.of(build("grpo"), 4096)
    for method in ("ppo", "grpo"):
        many, few = (Reads.of(build(method), budget) for budget in (20, 4096))
        assert many == few
        numbers, lists = many
        # The score of each of the eight that are shown, and the weight of PPO's KL.
        assert numbers <= 8 + 1
        # Which rows go on, once a token; the completions and their log-probs; what is shown; which count.
        assert lists <= 6 + 3 + 8 + 4
