"""The two sides of the training benchmark: TRL's own trainer, and the engine's own methods on TRL's own batches.

TRL runs as it is: `trainer.train()` with its data loader, collator, loss, clipping and optimizer. Each batch that its
`training_step` is given is unpadded and looked up among the rows (so its ids are proved to be ours) and handed to the
engine, which trains on the same rows in the same order. Both start from the same LoRA matrices and reward head.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from engine.data.examples import PreferenceExample
from engine.data.sft_examples import SftExample
from engine.methods.method import ExampleOrder, Method
from engine.methods.preference import PairObjective, PreferenceOptimisation, pair_log_probs
from engine.methods.reward import RewardModelling
from engine.methods.sft import SupervisedFineTuning
from engine.model.adapters import POLICY, REFERENCE, REWARD, RoleModel, build_roles
from engine.model.heads import ScalarHead
from engine.model.loading import load_causal_lm
from engine.objectives.preference import LossSettings
from engine.optimizer import Optimizer
from engine.run.config import RunConfig
from engine.run.config_layers import resolve
from engine.run.folder import RunFolder
from engine.training_loop import Progress, TrainingLoop
from tests.benchmarks.training_data import Row

RANK, ALPHA, BETA, LEARNING_RATE = 8, 16, 0.1, 2e-4
CPU = torch.device("cpu")
BUDGET = 4096
"""Tokens a micro-batch, the engine's default: every batch here fits into one."""


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    method: str
    precision: str
    epochs: int
    batch_size: int
    tuned: bool = False
    """TRL with what it has to be faster: padding-free SFT, precomputed reference log-probs."""
    kind: str = "lora"
    """Of the engine's side: lora, or full without TRL beside it."""
    budget: int = BUDGET
    """Tokens a micro-batch of the engine."""
    device: torch.device = CPU
    checkpointing: bool = False
    """Of the engine's side."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the base model on both sides; adapters are fp32, and so is a base whose every weight trains."""
        return torch.bfloat16 if self.precision == "bf16" and self.kind == "lora" else torch.float32


class CapturedOrder(ExampleOrder):
    """The rows of each step as TRL took them, filled in while TRL runs."""

    def __init__(self, examples: int, plan: Plan) -> None:
        super().__init__(examples, batch_size=plan.batch_size, epochs=plan.epochs, steps=0, seed=0)
        self.steps: list[list[int]] = []

    def indices(self, step: int) -> list[int]:
        return self.steps[step]


@dataclass
class EngineSide:
    """A method of the engine in the engine's loop."""

    method: Method
    order: CapturedOrder
    roles: RoleModel
    loop: TrainingLoop
    reference_s: tuple[float, float] = (0.0, 0.0)
    """Wall and CPU seconds of the one reference pass over all rows."""
    losses: list[float] = field(default_factory=list)

    def step(self) -> None:
        """One whole step of the loop: all micro-batches, clipping, AdamW, metrics read. Nothing is written."""
        self.losses.append(self.loop._train(len(self.losses))["loss"])


def engine_side(plan: Plan, folder: Path, rows: Sequence[Row]) -> EngineSide:
    """The engine's method over `rows`; for DPO its reference pass is run, and timed, here."""
    roles = engine_roles(plan, folder)
    seconds, reference_P2 = (0.0, 0.0), None
    if plan.method == "dpo":
        roles.keep_frozen_reference()
        began = clocks()
        reference_P2 = reference_of(plan, roles, rows)
        seconds = since(began)
    method, order = engine_method(plan, roles, rows, reference_P2)
    trained = dict(roles.trainable)
    for name, module in method.modules().items():
        trained.update({f"{name}.{key}": value for key, value in module.named_parameters()})
    config = engine_config(plan)
    optimizer = Optimizer(trained, config.optim, order.total_steps)
    # A loop that is asked for its steps alone reports to nobody, and of its run folder it reads only that it is empty.
    nobody: Any = SimpleNamespace(status=lambda **_: None, event=lambda *_, **__: None)
    none = RunFolder(folder / "no-run")
    loop = TrainingLoop(config, none, nobody, method, optimizer, None, Progress(), lambda folder: None, lambda: False)
    return EngineSide(method, order, roles, loop, seconds)


def engine_roles(plan: Plan, folder: Path) -> RoleModel:
    """The engine's model."""
    roles = build_roles(
        load_causal_lm(folder, dtype=plan.dtype, device=plan.device),
        kind=plan.kind,
        trained=REWARD if plan.method == "reward" else POLICY,
        start_adapter=None,
        rank=RANK,
        alpha=ALPHA,
    )
    roles.checkpointing = plan.checkpointing
    if plan.kind == "full" and plan.precision == "bf16":
        roles.autocast = torch.bfloat16
    return roles


def reference_of(plan: Plan, roles: RoleModel, rows: Sequence[Row]) -> torch.Tensor:
    """The reference's log-probs of both answers of each row, (P, 2)."""
    return pair_log_probs(
        roles, REFERENCE, engine_examples(plan, rows), budget=plan.budget, device=plan.device, check=lambda: None
    )


def engine_config(plan: Plan) -> RunConfig:
    """The settings of a run like this one, as far as its steps and its memory depend on them."""
    config = resolve(plan.method, []).config
    return replace(
        config,
        optim=replace(config.optim, lr=LEARNING_RATE, schedule="constant", warmup_share=0.0),
        adapter=replace(config.adapter, kind=plan.kind, r=RANK, alpha=ALPHA),
        train=replace(
            config.train, precision=plan.precision, batch_size=plan.batch_size, tokens_per_micro_batch=plan.budget
        ),
    )


def engine_method(
    plan: Plan, roles: RoleModel, rows: Sequence[Row], reference_P2: torch.Tensor | None
) -> tuple[Method, CapturedOrder]:
    """The engine's method over `rows`, and its order, which is to be filled in."""
    order = CapturedOrder(len(rows), plan)
    portions: dict[str, Any] = {"tokens_per_micro_batch": plan.budget, "device": plan.device}
    examples: Sequence[Any] = engine_examples(plan, rows)
    if plan.method == "sft":
        return SupervisedFineTuning(roles, examples, [], order, **portions), order
    if plan.method == "reward":
        head = ScalarHead(roles.hidden_size, seed=1).to(plan.device)
        return RewardModelling(roles, head, examples, [], order, center_coef=0.0, **portions), order
    assert reference_P2 is not None
    objective, reference = PairObjective("sigmoid", LossSettings(BETA)), (reference_P2, reference_P2[:0])
    return PreferenceOptimisation(
        roles, examples, [], order, objective=objective, reference=reference, **portions
    ), order


def engine_examples(plan: Plan, rows: Sequence[Row]) -> list[Any]:
    """`rows` as the engine's examples: SFT takes the chosen answer."""
    if plan.method == "sft":
        return [
            SftExample(str(i), (*r.prompt, *r.chosen), (False,) * len(r.prompt) + (True,) * len(r.chosen))
            for i, r in enumerate(rows)
        ]
    return [
        PreferenceExample(str(i), tuple(r.prompt), tuple(r.chosen), tuple(r.rejected), 1.0, None, str(i))
        for i, r in enumerate(rows)
    ]


@dataclass
class TrlSide:
    """A trainer of TRL; `batches` and `losses` fill while it trains."""

    trainer: Any
    reference_s: tuple[float, float] = (0.0, 0.0)
    """Wall and CPU seconds of its precomputed reference pass, where it has one."""
    batches: list[list[int]] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)


def trl_side(plan: Plan, folder: Path, rows: Sequence[Row], scratch: Path) -> TrlSide:
    """TRL's trainer over `rows`, ready to train."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    changes: dict[str, Any] = {}
    if plan.method == "sft":
        columns = [
            {"input_ids": r.prompt + r.chosen, "completion_mask": [0] * len(r.prompt) + [1] * len(r.chosen)}
            for r in rows
        ]
        config, trainer_class, auto = trl.SFTConfig, trl.SFTTrainer, AutoModelForCausalLM
        changes |= {"completion_only_loss": True, "padding_free": plan.tuned, "max_length": None}
    elif plan.method == "reward":
        columns = [{"chosen_ids": r.prompt + r.chosen, "rejected_ids": r.prompt + r.rejected} for r in rows]
        config, trainer_class, auto = trl.RewardConfig, trl.RewardTrainer, AutoModelForSequenceClassification
    else:
        columns = [{"prompt_ids": r.prompt, "chosen_ids": r.chosen, "rejected_ids": r.rejected} for r in rows]
        config, trainer_class, auto = trl.DPOConfig, _tokenised(trl.DPOTrainer), AutoModelForCausalLM
        changes |= {"beta": BETA, "precompute_ref_log_probs": plan.tuned}
    labels = {"num_labels": 1} if plan.method == "reward" else {}
    arguments = config(
        output_dir=str(scratch), per_device_train_batch_size=plan.batch_size, num_train_epochs=plan.epochs,
        gradient_checkpointing=False, bf16=plan.precision == "bf16", report_to="none", save_strategy="no",
        use_cpu=plan.device.type == "cpu", disable_tqdm=True, learning_rate=LEARNING_RATE, max_grad_norm=1.0,
        lr_scheduler_type="constant", weight_decay=0.0, **changes,
    )  # fmt: skip
    lora = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="SEQ_CLS" if labels else "CAUSAL_LM",
        modules_to_save=["score"] if labels else None,
    )  # fmt: skip
    trainer = trainer_class(
        model=auto.from_pretrained(str(folder), dtype=plan.dtype, **labels), args=arguments, peft_config=lora,
        train_dataset=Dataset.from_list(columns), processing_class=AutoTokenizer.from_pretrained(str(folder)),
    )  # fmt: skip
    return TrlSide(trainer, getattr(trainer, "reference_s", (0.0, 0.0)))


def begin_alike(engine: EngineSide, trl: TrlSide) -> None:
    """Give TRL's model the engine's LoRA matrices and reward head."""
    theirs = dict(trl.trainer.model.named_parameters())
    copied = 0
    with torch.no_grad():
        for name, value in engine.roles.trainable.items():
            theirs["base_model.model." + name.replace(f".{engine.roles.trained}.", ".default.")].copy_(value)
            copied += 1
        if isinstance(engine.method, RewardModelling):
            (score,) = [p for name, p in theirs.items() if "score.modules_to_save" in name]
            score.copy_(engine.method.head.linear.weight)
    assert copied == sum(1 for name in theirs if ".lora_" in name)


def train_alternately(plan: Plan, rows: Sequence[Row], trl: TrlSide, after_step: Callable[[list[int]], None]) -> None:
    """Run TRL's whole training; after each of its steps `after_step` is given the rows that the step took."""
    from transformers import TrainerCallback

    where = {tuple(row.prompt + row.chosen): i for i, row in enumerate(rows)}
    step = trl.trainer.training_step

    def spied(model: Any, inputs: dict[str, torch.Tensor], *rest: Any, **named: Any) -> torch.Tensor:
        trl.batches.append([where[tuple(ids)] for ids in _unpadded(plan, inputs)])
        loss: torch.Tensor = step(model, inputs, *rest, **named)
        trl.losses.append(loss.detach())
        return loss

    class Alternate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            after_step(trl.batches[-1])

    trl.trainer.training_step = spied
    trl.trainer.add_callback(Alternate())
    trl.trainer.train()


def clocks() -> tuple[float, float]:
    """Wall and CPU seconds now, when a GPU has done what it was told; the CPU's are of all threads of the process."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    """Wall and CPU seconds since `began`."""
    wall, cpu = clocks()
    return wall - began[0], cpu - began[1]


def _unpadded(plan: Plan, inputs: dict[str, torch.Tensor]) -> list[list[int]]:
    """The sequences of a batch that name its rows: all of SFT's, the chosen half of a batch of pairs."""
    ids = inputs["input_ids"]
    if "attention_mask" not in inputs:
        starts = (inputs["position_ids"][0] == 0).nonzero().flatten().tolist()
        return [part.tolist() for part in ids[0].tensor_split(starts[1:])]
    sequences = [row[mask.bool()].tolist() for row, mask in zip(ids, inputs["attention_mask"], strict=True)]
    return sequences if plan.method == "sft" else sequences[: len(sequences) // 2]


def _tokenised(trainer_class: Any) -> Any:
    """DPOTrainer for rows that are token ids already, as its siblings take them; it times its reference pass."""

    class Tokenised(trainer_class):
        reference_s = (0.0, 0.0)

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *rest: Any, **named: Any) -> Any:
            began = clocks()
            out = super()._precompute_ref_logps(*rest, **named)
            self.reference_s = since(began)
            return out

    return Tokenised
