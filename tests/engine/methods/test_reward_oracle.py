"""Twenty optimizer steps of a LoRA reward model with margins and centring against trl 1.16.0.

As in test_trl_oracle.py the very token ids of TRL's batches are compared, fp32: the same fresh adapter and head, AdamW
with decay to zero and clipping over adapter and head together; the same adapter and head afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.data.examples import PreferenceExample
from engine.methods.method import ExampleOrder
from engine.methods.reward import RewardModelling
from engine.model.adapters import REWARD, RoleModel, build_roles
from engine.model.heads import ScalarHead
from engine.optimizer import Optimizer
from engine.run.config import OptimConfig
from tests.engine.methods.test_trl_oracle import CPU, PAIRS, load, settings

STEPS = 20
CENTER = 0.01
ROWS = [
    {
        "chosen": [{"role": "user", "content": prompt}, {"role": "assistant", "content": chosen}],
        "rejected": [{"role": "user", "content": prompt}, {"role": "assistant", "content": rejected}],
        "margin": 0.25 * number,
    }
    for number, (prompt, chosen, rejected) in enumerate(PAIRS)
]


class _Recorded(ExampleOrder):
    """The batches that TRL took, in their order."""

    def __init__(self, batches: int, size: int) -> None:
        super().__init__(batches * size, batch_size=size, epochs=1, steps=batches, seed=0)

    def indices(self, step: int) -> list[int]:
        return list(range(step * self._batch_size, (step + 1) * self._batch_size))


def trl_trainer(folder: Path, scratch: Path) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    shape = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"])
    return RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(str(folder), num_labels=1, dtype=torch.float32),
        args=settings(
            RewardConfig, scratch, center_rewards_coefficient=CENTER, max_steps=STEPS, learning_rate=1e-2,
            lr_scheduler_type="linear", warmup_steps=0, max_grad_norm=1.0, weight_decay=0.0,
        ),
        train_dataset=Dataset.from_list(ROWS * 5),
        processing_class=AutoTokenizer.from_pretrained(str(folder)),
        peft_config=shape,
    )  # fmt: skip


def unpadded(batch: dict[str, torch.Tensor], name: str) -> list[PreferenceExample]:
    """The pairs of TRL's batch: chosen answers first, then the rejected ones, padded on the right."""
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    half = len(rows) // 2
    return [
        PreferenceExample(
            f"{name}-{i}", rows[i][:1], rows[i][1:], rows[i + half][1:], 1.0, batch["margin"][i].item(), f"{name}-{i}"
        )
        for i in range(half)
    ]


def train(roles: RoleModel, head: ScalarHead, batches: list[list[PreferenceExample]]) -> None:
    """Our updates over the recorded batches, in several micro-batches a step."""
    examples = [example for batch in batches for example in batch]
    method = RewardModelling(
        roles, head, examples, [], _Recorded(len(batches), len(batches[0])),
        center_coef=CENTER, tokens_per_micro_batch=90, device=CPU,
    )  # fmt: skip
    named = {**roles.trainable, "reward_head.weight": head.linear.weight}
    schedule = OptimConfig(lr=1e-2, schedule="linear", warmup_share=0.0, max_grad_norm=1.0)
    optimizer = Optimizer(named, schedule, len(batches))
    for step in range(len(batches)):
        (update,) = method.updates(step)
        assert len(update.micro_batches) > 1
        for run in update.micro_batches:
            (run().losses["pairs"] / update.counts["pairs"]).backward()
        optimizer.step(step, [norm.item() for norm in optimizer.gradient_norms()])


def test_twenty_steps_of_lora(tiny_model_folder: Path, tmp_path: Path) -> None:
    roles = build_roles(
        load(tiny_model_folder), kind="lora", trained=REWARD, start_adapter=None, rank=4, alpha=8.0, seed=3
    )
    head = ScalarHead(roles.hidden_size, seed=3)
    trainer = trl_trainer(tiny_model_folder, tmp_path)
    theirs = dict(trainer.model.named_parameters())
    named = {f"base_model.model.{n}".replace(f".{REWARD}.", ".default."): p for n, p in roles.trainable.items()}
    named["base_model.model.score.modules_to_save.default.weight"] = head.linear.weight
    with torch.no_grad():
        for name, parameter in named.items():
            theirs[name].copy_(parameter)
    assert {name for name, parameter in theirs.items() if parameter.requires_grad} == set(named)
    begun = {name: parameter.detach().clone() for name, parameter in named.items()}
    batches: list[list[PreferenceExample]] = []
    compute_loss = trainer.compute_loss

    def recording(model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        batches.append(unpadded(inputs, str(len(batches))))
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = recording
    trainer.train()
    assert len(batches) == STEPS
    train(roles, head, batches)
    for name, parameter in named.items():
        difference = (parameter - theirs[name]).norm() / parameter.norm()
        assert difference.item() < 1e-3, name
        assert not torch.allclose(parameter, begun[name], atol=1e-3), name
