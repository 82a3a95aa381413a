"""SFT, reward and DPO against trl 1.16.0: the same weights, TRL's own batch, fp32; losses and gradients.

TRL tokenises, pads and collates; the very token ids of its batch are unpadded into ours, so what is compared is the
computation and nothing else. TRL's settings are its defaults but for fp32 and no activation checkpointing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.examples import PreferenceExample
from engine.data.sft_examples import SftExample
from engine.methods.method import ExampleOrder
from engine.methods.reward import RewardModelling
from engine.methods.sft import SupervisedFineTuning
from engine.model.adapters import POLICY, REWARD, RoleModel, build_roles
from engine.model.heads import ScalarHead

CPU = torch.device("cpu")
PAIRS = [
    ("What is the colour of the sea?", "The sea is blue.", "Bread."),
    ("Name three birds.", "A robin, a heron and a crow.", "The cat sat on the mat and looked at the rain."),
    ("Write one line about bread.", "Bread is warm and good.", "One line about the rain, and one about the sea."),
    ("Where did the cat sit?", "On the mat.", "It sat in the rain and the mat was warm and good."),
]
ONE_STEP = ExampleOrder(len(PAIRS), batch_size=len(PAIRS), epochs=1, steps=1, seed=0)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(tiny_model_folder))


def trl_batch(trainer: Any) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = next(iter(trainer.get_train_dataloader()))
    return batch


def settings(config: Any, tmp_path: Path, **changes: Any) -> Any:
    return config(
        output_dir=str(tmp_path),
        per_device_train_batch_size=len(PAIRS),
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **changes,
    )


def our_loss(method: Any) -> torch.Tensor:
    """The loss of the one update of step 0, backward pass included."""
    (update,) = list(method.updates(0))
    total = torch.zeros(())
    for run in update.micro_batches:
        terms = run()
        loss = torch.stack([value / update.counts[key] for key, value in terms.losses.items()]).sum()
        loss.backward()
        total = total + loss.detach()
    return total


def assert_equal_gradients(ours: Any, theirs: Any, renamed: dict[str, str] | None = None) -> None:
    """Every gradient of `theirs` within rtol 1e-3, atol 1e-6 of ours."""
    mine = dict(ours.named_parameters())
    compared = 0
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None or name not in mine:
            continue
        assert torch.allclose(mine[name].grad, parameter.grad, rtol=1e-3, atol=1e-6), name
        compared += 1
    assert compared >= 18


def full(model: Any, trained: str = POLICY) -> RoleModel:
    roles = build_roles(model, kind="full", trained=trained, start_adapter=None)
    roles.keep_frozen_reference()
    return roles


def load(folder: Path, seed_of_noise: int | None = None) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    if seed_of_noise is not None:
        generator = torch.Generator().manual_seed(seed_of_noise)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model.eval()


@pytest.mark.parametrize("budget", [4096, 60], ids=["one micro-batch", "several micro-batches"])
def test_sft(tiny_model_folder: Path, tokenizer: Any, tmp_path: Path, budget: int) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"prompt": [{"role": "user", "content": p}], "completion": [{"role": "assistant", "content": c}]}
        for p, c, _ in PAIRS
    ]
    theirs = load(tiny_model_folder)
    trainer = SFTTrainer(
        model=theirs,
        args=settings(SFTConfig, tmp_path),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = trl_batch(trainer)
    expected = trainer.compute_loss(theirs, dict(batch))
    expected.backward()

    examples = []
    for i, (ids, mask, labels) in enumerate(
        zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True)
    ):
        real = mask.bool()
        examples.append(SftExample(str(i), ids[real].tolist(), (labels[real] != -100).tolist()))
    assert 0 < sum(sum(e.trained) for e in examples) < sum(len(e.ids) for e in examples)
    roles = full(load(tiny_model_folder))
    method = SupervisedFineTuning(roles, examples, [], ONE_STEP, tokens_per_micro_batch=budget, device=CPU)
    assert our_loss(method).item() == pytest.approx(expected.item(), rel=1e-5)
    assert_equal_gradients(roles.model, theirs)


@pytest.mark.parametrize("center", [None, 0.01], ids=["plain", "centred"])
def test_reward(tiny_model_folder: Path, tokenizer: Any, tmp_path: Path, center: float | None) -> None:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    rows = [
        {
            "chosen": [{"role": "user", "content": p}, {"role": "assistant", "content": c}],
            "rejected": [{"role": "user", "content": p}, {"role": "assistant", "content": r}],
            "margin": 0.25 * i,
        }
        for i, (p, c, r) in enumerate(PAIRS)
    ]
    theirs = AutoModelForSequenceClassification.from_pretrained(
        str(tiny_model_folder), num_labels=1, dtype=torch.float32
    )
    trainer = RewardTrainer(
        model=theirs,
        args=settings(RewardConfig, tmp_path, center_rewards_coefficient=center),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = trl_batch(trainer)
    trainer.model.eval()
    expected = trainer.compute_loss(theirs, dict(batch))
    expected.backward()

    def unpad(row: int) -> list[int]:
        ids: list[int] = batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()
        return ids

    margins = batch["margin"].tolist()
    examples = [
        PreferenceExample(str(i), unpad(i)[:1], unpad(i)[1:], unpad(i + len(PAIRS))[1:], 1.0, margins[i], str(i))
        for i in range(len(PAIRS))
    ]
    roles = build_roles(load(tiny_model_folder), kind="full", trained=REWARD, start_adapter=None)
    head = ScalarHead(roles.hidden_size)
    with torch.no_grad():
        head.linear.weight.copy_(theirs.score.weight)
    method = RewardModelling(
        roles, head, examples, [], ONE_STEP, center_coef=center or 0.0, tokens_per_micro_batch=90, device=CPU
    )
    assert our_loss(method).item() == pytest.approx(expected.item(), rel=1e-5)
    assert_equal_gradients(roles.model, theirs)
    assert torch.allclose(head.linear.weight.grad, theirs.score.weight.grad, rtol=1e-3, atol=1e-6)
