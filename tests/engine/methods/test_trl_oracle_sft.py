"""What SFT can minimise, and what it trains of a chat, against trl 1.16.0: label smoothing, DFT, masks, twenty steps.

As in test_trl_oracle.py the very token ids of TRL's batch are compared, fp32. The chat template is the one that TRL
trains Qwen3 with, read from the installed package: it marks what is trained by `{% generation %}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import trl

from engine.data.chat import ChatTokenizer
from engine.data.sft_examples import SftExample, sft_row
from engine.methods.method import ExampleOrder
from engine.methods.sft import SupervisedFineTuning
from engine.model.adapters import POLICY, RoleModel, build_roles
from engine.optimizer import Optimizer
from engine.run.config import OptimConfig
from tests.engine.methods.test_trl_oracle import (
    CPU,
    ONE_STEP,
    PAIRS,
    assert_equal_gradients,
    full,
    load,
    our_loss,
    settings,
    trl_batch,
)

TRAINED_BY_TAG = (Path(trl.__file__).parent / "chat_templates" / "qwen3_training.jinja").read_text()
TALKS = [
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": first[0]},
        {"role": "assistant", "content": first[1]},
        {"role": "user", "content": second[0]},
        {"role": "assistant", "content": second[1]},
    ]
    for first, second in zip(PAIRS, reversed(PAIRS), strict=True)
]
ROWS = [
    {"prompt": [{"role": "user", "content": p}], "completion": [{"role": "assistant", "content": c}]}
    for p, c, _ in PAIRS
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(tiny_model_folder))


def trainer_of(model: Any, tokenizer: Any, tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    more = {key: changes.pop(key) for key in ("peft_config",) if key in changes}
    return SFTTrainer(
        model=model,
        args=settings(SFTConfig, tmp_path, **changes),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **more,
    )


def unpadded(batch: dict[str, torch.Tensor]) -> list[SftExample]:
    examples = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        real = mask.bool()
        examples.append(
            SftExample(str(len(examples)), tuple(ids[real].tolist()), tuple((labels[real] != -100).tolist()))
        )
    return examples


@pytest.mark.filterwarnings("ignore:.*label_smoothing_factor.*:FutureWarning")
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [({"label_smoothing_factor": 0.15}, {"label_smoothing": 0.15}), ({"loss_type": "dft"}, {"loss": "dft"})],
    ids=["label smoothing", "dft"],
)
def test_objectives(
    theirs: dict[str, Any], ours: dict[str, Any], tiny_model_folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    model = load(tiny_model_folder)
    trainer = trainer_of(model, tokenizer, tmp_path, ROWS, **theirs)
    batch = trl_batch(trainer)
    expected = trainer.compute_loss(model, dict(batch))
    expected.backward()
    roles = full(load(tiny_model_folder))
    method = SupervisedFineTuning(roles, unpadded(batch), [], ONE_STEP, tokens_per_micro_batch=60, device=CPU, **ours)
    assert our_loss(method).item() == pytest.approx(expected.item(), rel=1e-5)
    assert_equal_gradients(roles.model, model)


class TestAssistantOnly:
    """TRL reads its masks from `{% generation %}`, ours are proved from prefixes of the rendering."""

    @pytest.fixture
    def tagged(self, tiny_model_folder: Path) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(tiny_model_folder), chat_template=TRAINED_BY_TAG)

    def test_loss_and_gradients(self, tiny_model_folder: Path, tagged: Any, tmp_path: Path) -> None:
        model = load(tiny_model_folder)
        rows = [{"messages": talk} for talk in TALKS]
        trainer = trainer_of(model, tagged, tmp_path, rows, assistant_only_loss=True)
        batch = trl_batch(trainer)
        expected = trainer.compute_loss(model, dict(batch))
        expected.backward()
        roles = full(load(tiny_model_folder))
        method = SupervisedFineTuning(roles, unpadded(batch), [], ONE_STEP, tokens_per_micro_batch=300, device=CPU)
        assert our_loss(method).item() == pytest.approx(expected.item(), rel=1e-5)
        assert_equal_gradients(roles.model, model)

    def test_masks_differ_by_the_newline_behind_a_turn_alone(self, tiny_model_folder: Path, tagged: Any) -> None:
        """TRL trains the newline that ChatML writes behind <|im_end|>; no sampler ever shows it to the model."""
        ours = ChatTokenizer.from_folder(tiny_model_folder, chat_template=TRAINED_BY_TAG)
        newline = ours.encode("\n")[0]
        for talk in TALKS:
            theirs = tagged.apply_chat_template(
                talk, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
            (example,) = sft_row({"messages": talk}, "x", ours, 1000, "assistant").examples
            ids, mask = theirs["input_ids"], [bool(on) for on in theirs["assistant_masks"]]
            assert list(example.ids) == ids[:-1]
            trained_by_them_alone = [i for i, on in enumerate(mask[:-1]) if on and not example.trained[i]]
            assert all(mask[i] for i, on in enumerate(example.trained) if on)
            assert [ids[i] for i in trained_by_them_alone] == [newline]
            assert example.ids[trained_by_them_alone[0] - 1] == ours.end_of_turn_id


class _Recorded(ExampleOrder):
    """The batches that the other side took, in its order."""

    def __init__(self, batches: list[list[int]]) -> None:
        super().__init__(sum(map(len, batches)), batch_size=len(batches[0]), epochs=1, steps=len(batches), seed=0)
        self._batches = batches

    def indices(self, step: int) -> list[int]:
        return self._batches[step]


def test_twenty_steps_of_lora(tiny_model_folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Same fresh adapter, same batches, AdamW with warm-up, decay to zero and clipping: the same adapter afterwards."""
    from peft import LoraConfig

    steps = 20
    roles = build_roles(
        load(tiny_model_folder), kind="lora", trained=POLICY, start_adapter=None, rank=4, alpha=8.0, seed=3
    )
    shape = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = trainer_of(
        load(tiny_model_folder), tokenizer, tmp_path, ROWS * 5, peft_config=shape, max_steps=steps,
        learning_rate=1e-2, lr_scheduler_type="linear", warmup_steps=0, max_grad_norm=1.0, weight_decay=0.0,
    )  # fmt: skip
    theirs = dict(trainer.model.named_parameters())
    with torch.no_grad():
        for name, parameter in roles.trainable.items():
            theirs[_in_peft(name)].copy_(parameter)
    batches: list[list[SftExample]] = []
    compute_loss = trainer.compute_loss

    def recording(model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        batches.append(unpadded(inputs))
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = recording
    trainer.train()
    assert len(batches) == steps
    _train(roles, batches)
    for name, parameter in roles.trainable.items():
        difference = (parameter - theirs[_in_peft(name)]).norm() / parameter.norm()
        assert difference.item() < 1e-3, name


def _in_peft(name: str) -> str:
    """The name of a trained parameter in a PeftModel whose only adapter has peft's default name."""
    return f"base_model.model.{name}".replace(f".{POLICY}.", ".default.")


def _train(roles: RoleModel, batches: list[list[SftExample]]) -> None:
    """Our loop over the recorded batches, in two or more micro-batches a step."""
    examples = [example for batch in batches for example in batch]
    starts = [sum(len(b) for b in batches[:i]) for i in range(len(batches))]
    order = _Recorded([list(range(a, a + len(b))) for a, b in zip(starts, batches, strict=True)])
    method = SupervisedFineTuning(roles, examples, [], order, tokens_per_micro_batch=60, device=CPU)
    schedule = OptimConfig(lr=1e-2, schedule="linear", warmup_share=0.0, max_grad_norm=1.0)
    optimizer = Optimizer(roles.trainable, schedule, len(batches))
    for step in range(len(batches)):
        for update in method.updates(step):
            for run in update.micro_batches:
                terms = run()
                (terms.losses["tokens"] / update.counts["tokens"]).backward()
            optimizer.step(step, [norm.item() for norm in optimizer.gradient_norms()])
