"""GRPO's kin and RLOO against trl 1.16.0: the same weights, tokens and measured log-probs, fp32; losses and gradients.

TRL's `_compute_loss` is given one padded batch of completions with old and reference log-probs that differ enough from
the policy's for some ratios to be clipped; ours is the same completions packed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.packing import Document, pack
from engine.model.adapters import POLICY, RoleModel, build_roles
from engine.objectives.group_advantages import group_relative, leave_one_out
from engine.objectives.grouped_policy import GroupedObjective
from engine.objectives.kl_loss import LOSS_ESTIMATORS

PROMPTS = ([10, 11, 12, 13], [20, 21])
COMPLETIONS = (([30, 31, 32, 33, 34], [35], [36, 37, 38]), ([40, 41], [42, 43, 44, 45], [46, 47, 48]))
LENGTHS = [len(c) for group in COMPLETIONS for c in group]
SCORES = torch.tensor([[1.0, -0.5, 0.25], [2.0, 2.5, -1.0]])
LONGEST = 7
TRL: dict[str, tuple[GroupedObjective, dict[str, Any]]] = {
    "grpo": (GroupedObjective(added_up="sequences"), {"loss_type": "grpo"}),
    "clip-higher": (GroupedObjective(clip_high=0.4), {"loss_type": "dapo", "epsilon_high": 0.4}),
    "dr_grpo": (GroupedObjective(added_up="constant", longest=LONGEST), {"loss_type": "dr_grpo"}),
    "gspo": (
        GroupedObjective(ratio_level="sequence_mean", added_up="sequences"),
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    ),
    # TRL's epsilon_high is the bound itself here, and elsewhere what is added to 1; ours is always added, as published.
    "cispo": (GroupedObjective(surrogate="cispo", clip_high=0.3), {"loss_type": "cispo", "epsilon_high": 1.3}),
    "k3 in the loss": (
        GroupedObjective(kl_coef=0.3, kl_estimator="k3"),
        {"loss_type": "dapo", "beta": 0.3, "use_bias_correction_kl": False},
    ),
    "weighed k3": (GroupedObjective(kl_coef=0.3, kl_estimator="k3_token"), {"loss_type": "dapo", "beta": 0.3}),
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(tiny_model_folder))


@pytest.fixture
def trainer_of(tiny_model_folder: Path, tokenizer: Any, tmp_path: Path) -> Any:
    def make(trainer: Any, config: Any, **changes: Any) -> Any:
        from datasets import Dataset
        from transformers import AutoModelForCausalLM

        arguments = config(
            output_dir=str(tmp_path), per_device_train_batch_size=6, num_generations=3, max_completion_length=LONGEST,
            gradient_checkpointing=False, bf16=False, use_cpu=True, report_to="none", disable_tqdm=True, **changes,
        )  # fmt: skip
        made = trainer(
            model=AutoModelForCausalLM.from_pretrained(str(tiny_model_folder), dtype=torch.float32),
            reward_funcs=lambda completions, **_: [0.0 for _ in completions],
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": "The sea"}] * 6),
            processing_class=tokenizer,
        )
        made.model.eval()
        return made

    return make


@pytest.fixture
def roles(tiny_model: Any) -> RoleModel:
    return build_roles(tiny_model, kind="full", trained=POLICY, start_adapter=None)


def documents() -> list[Document]:
    return [
        Document.completion(prompt, completion, shared=len(prompt) if place else 0)
        for prompt, group in zip(PROMPTS, COMPLETIONS, strict=True)
        for place, completion in enumerate(group)
    ]


def measured(roles: RoleModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs (N,) of an older policy and of a reference, both some way off."""
    with torch.no_grad():
        now_N = roles.scores(pack(documents()), POLICY)[0].log_probs_N
    generator = torch.Generator().manual_seed(6)
    old_N, reference_N = (now_N + 0.4 * torch.randn(now_N.shape, generator=generator) for _ in range(2))
    return old_N, reference_N


def ours(roles: RoleModel, objective: GroupedObjective, advantages_D: torch.Tensor) -> torch.Tensor:
    """The loss, backward pass included."""
    old_N, reference_N = measured(roles)
    batch = pack(documents())
    scores, _ = roles.scores(batch, POLICY)
    tokens_D = torch.tensor(LENGTHS, dtype=torch.float32)
    found = objective.token_losses(
        scores.log_probs_N, old_N, reference_N, advantages_D[batch.document_N], batch.document_N, tokens_D
    )
    loss = found.loss_N.sum() / objective.denominator(LENGTHS)
    loss.backward()
    return loss.detach()


def padded(values_N: torch.Tensor) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(values_N.split(LENGTHS)), batch_first=True)


def trl_inputs(roles: RoleModel, advantages_D: torch.Tensor) -> dict[str, torch.Tensor]:
    completions = [torch.tensor(c) for group in COMPLETIONS for c in group]
    longest = max(map(len, PROMPTS))
    prompts = [p for p, group in zip(PROMPTS, COMPLETIONS, strict=True) for _ in group]
    old_N, reference_N = measured(roles)
    return {
        "prompt_ids": torch.tensor([[3] * (longest - len(p)) + p for p in prompts]),
        "prompt_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts]),
        "completion_ids": torch.nn.utils.rnn.pad_sequence(completions, batch_first=True, padding_value=3),
        "completion_mask": padded(torch.ones(sum(LENGTHS), dtype=torch.int64)),
        "advantages": advantages_D,
        "old_per_token_logps": padded(old_N),
        "ref_per_token_logps": padded(reference_N),
        "old_logps": padded(old_N).sum(1),
        "num_items_in_batch": torch.tensor(float(sum(LENGTHS))),
    }


def assert_agree(roles: RoleModel, trainer: Any, objective: GroupedObjective, advantages_D: torch.Tensor) -> None:
    inputs = trl_inputs(roles, advantages_D)
    expected = trainer._compute_loss(trainer.model, inputs)
    expected.backward()
    assert ours(roles, objective, advantages_D).item() == pytest.approx(expected.item(), rel=1e-5)
    mine = dict(roles.model.named_parameters())
    compared = [(name, p) for name, p in trainer.model.named_parameters() if p.grad is not None]
    assert len(compared) >= 18
    for name, parameter in compared:
        assert torch.allclose(mine[name].grad, parameter.grad, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("name", TRL)
def test_grpo_and_its_kin(trainer_of: Any, roles: RoleModel, name: str) -> None:
    from trl import GRPOConfig, GRPOTrainer

    objective, settings = TRL[name]
    trainer = trainer_of(GRPOTrainer, GRPOConfig, **{"beta": 0.0, "epsilon": 0.2, **settings})
    assert_agree(roles, trainer, objective, group_relative(SCORES, scale="group").flatten())


def test_rloo(trainer_of: Any, roles: RoleModel) -> None:
    from trl import RLOOConfig, RLOOTrainer

    objective = GroupedObjective(ratio_level="sequence_sum", added_up="sequences")
    trainer = trainer_of(RLOOTrainer, RLOOConfig, beta=0.1, epsilon=0.2)
    assert_agree(roles, trainer, objective, leave_one_out(SCORES).flatten())


def test_trl_weighs_the_kl_of_gspo_by_the_mean_ratio_and_we_by_the_token_s(trainer_of: Any, roles: RoleModel) -> None:
    """The estimator is right for a ratio of probabilities, which the geometric mean of ratios is not."""
    from trl import GRPOConfig, GRPOTrainer

    objective = GroupedObjective(
        ratio_level="sequence_mean", added_up="sequences", kl_coef=0.3, kl_estimator="k3_token"
    )
    trainer = trainer_of(
        GRPOTrainer, GRPOConfig, loss_type="grpo", importance_sampling_level="sequence", beta=0.3, epsilon=0.2
    )
    advantages_D = group_relative(SCORES, scale="group").flatten()
    expected = trainer._compute_loss(trainer.model, trl_inputs(roles, advantages_D)).item()
    assert ours(roles, objective, advantages_D).item() != pytest.approx(expected, rel=1e-3)
    # The rest is the same: TRL's weight in place of ours gives TRL's loss.
    old_N, reference_N = measured(roles)
    batch = pack(documents())
    with torch.no_grad():
        now_N = roles.scores(batch, POLICY)[0].log_probs_N
    tokens_D = torch.tensor(LENGTHS, dtype=torch.float32)
    rest = (replace(objective, kl_coef=0.0), now_N, old_N, reference_N)
    found = rest[0].token_losses(*rest[1:], advantages_D[batch.document_N], batch.document_N, tokens_D)
    k3_N = LOSS_ESTIMATORS["k3"](now_N, reference_N, old_N, batch.document_N)
    whole_N = found.loss_N + 0.3 * found.ratio_N * k3_N / tokens_D[batch.document_N]
    assert (whole_N.sum() / len(LENGTHS)).item() == pytest.approx(expected, rel=1e-5)
