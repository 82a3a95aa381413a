"""What a step costs, counted and not timed: these counts are what carries over from a CPU to any device."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from engine.model import frozen_head
from engine.model.adapters import REFERENCE, RoleModel
from engine.reporting import Reporter
from engine.run.config_toml import read_config
from engine.run.status import new_status
from engine.worker import train
from tests.benchmarks.training_data import Row
from tests.benchmarks.training_sides import EngineSide, Plan, engine_method, engine_roles, engine_side, reference_of
from tests.engine.run_maker import make_run

METHODS = ("sft", "reward", "dpo")
ROWS = [Row([5, 6, 7], [8, 9, 10, 11], [12, 13]), Row([14, 15], [16], [17, 18, 19, 20, 21])]
PROMPTS, CHOSEN, REJECTED = 3 + 2, 4 + 1, 2 + 5
HOST_COPIES = ("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero")
"""What makes the host wait for the device: a number read, or a shape that depends on values."""


def side(method: str, folder: Path) -> EngineSide:
    found = engine_side(Plan(method, "fp32", 1, 2), folder, ROWS)
    found.order.steps = [[0, 1], [1, 0]]
    return found


def counted(found: EngineSide, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """One step: the tokens of each forward pass of the decoder, and the rows of each product of the LM head."""
    passes: list[int] = []
    rows: list[int] = []
    model = found.roles.model
    work = frozen_head.linear

    def noted(x: torch.Tensor, weight: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        assert weight is model.get_output_embeddings().weight
        rows.append(x.shape[0])
        return work(x, weight, *others)

    monkeypatch.setattr(frozen_head, "linear", noted)  # it is worked by its matrix
    hooks = [
        model.get_decoder().register_forward_pre_hook(
            lambda module, args, kwargs: passes.append(kwargs["input_ids"].numel()), with_kwargs=True
        ),
        model.get_output_embeddings().register_forward_pre_hook(lambda module, args: rows.append(args[0].shape[0])),
    ]
    found.step()
    for hook in hooks:
        hook.remove()
    return passes, rows


@pytest.mark.parametrize(
    ("method", "tokens", "targets"),
    [
        ("sft", PROMPTS + CHOSEN, [CHOSEN]),
        ("reward", PROMPTS + CHOSEN + REJECTED, []),
        ("dpo", PROMPTS + CHOSEN + REJECTED, [CHOSEN + REJECTED]),
    ],
)
def test_one_forward_pass_without_padding_and_the_head_at_trained_tokens_alone(
    tiny_model_folder: Path, method: str, tokens: int, targets: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counted(side(method, tiny_model_folder), monkeypatch) == ([tokens], targets)


@pytest.mark.parametrize("method", ["reward", "dpo"])
@pytest.mark.parametrize(
    ("shared", "passes"),
    [
        # Pairs of 8 + 2 + 2 tokens, and 8 more where each answer has the prompt before it: two of 12, or one of 20.
        (True, [24, 24]),
        (False, [20, 20, 20, 20]),
    ],
)
def test_no_pass_holds_more_tokens_than_its_budget(
    tiny_model_folder: Path, method: str, shared: bool, passes: list[int]
) -> None:
    rows = [Row([i] * 8, [5, 6], [7, 8]) for i in range(10, 14)]
    plan = Plan(method, "fp32", 1, 4, budget=24)
    roles = engine_roles(plan, tiny_model_folder)
    roles.share_prompts = shared
    seen: list[int] = []
    roles.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    reference_P2 = reference_of(plan, roles, rows) if method == "dpo" else None
    assert seen == (passes if method == "dpo" else [])
    built, order = engine_method(plan, roles, rows, reference_P2)
    order.steps = [[0, 1, 2, 3]]
    seen.clear()
    (update,) = built.updates(0)
    for run in update.micro_batches:
        run()
    assert seen == passes
    assert update.tokens == sum(passes)


@pytest.mark.parametrize("method", METHODS)
def test_the_host_reads_numbers_once_a_step(tiny_model_folder: Path, method: str) -> None:
    found = side(method, tiny_model_folder)
    found.step()
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patch, profile(activities=[ProfilerActivity.CPU]) as profiled:
        patch.setattr(torch.Tensor, "tolist", _counting(torch.Tensor.tolist, read))
        # On a CPU the fused kernel reads its step counts from host memory; on CUDA they lie on the device.
        patch.setattr(torch.optim.AdamW, "step", lambda self: None)
        found.step()
    calls = Counter({event.key: event.count for event in profiled.key_averages()})
    assert {name: calls[name] for name in HOST_COPIES if calls[name]} == {}
    assert len(read) == 1


def _counting(tolist: Any, calls: list[int]) -> Any:
    def counting(tensor: torch.Tensor) -> Any:
        calls.append(tensor.numel())
        return tolist(tensor)

    return counting


def test_the_reference_sees_each_answer_once_in_three_epochs(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[int] = []
    scores = RoleModel.scores

    def counting(roles: RoleModel, batch: Any, role: str, **options: Any) -> Any:
        if role == REFERENCE:
            answers.append(len(batch.spans))
        return scores(roles, batch, role, **options)

    monkeypatch.setattr(RoleModel, "scores", counting)
    folder = make_run(
        tmp_path / "run", "dpo", tiny_model_folder, train_rows=8, eval_rows=4, train__steps=0, train__epochs=3.0,
        probe__prompts=0,
    )  # fmt: skip
    reporter = Reporter(folder, new_status(folder, None, phase="preparing"))
    train(read_config(folder.config_path), folder, reporter, lambda: False)
    assert sum(answers) == 2 * (8 + 4)
