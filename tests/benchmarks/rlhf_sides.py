"""The two sides of the RLHF benchmark: TRL's own GRPO or RLOO trainer, and the engine's method on TRL's completions.

TRL runs as it is: `trainer.train()` with its sampler, `generate`, log-probs, loss, clipping and optimizer. After each
of its rounds (completions, their scores and log-probs, two updates) the engine makes a round on the same prompts: it
samples completions of its own, which is timed, and goes on with TRL's in their place, so that both score and train on
the same tokens. Both begin from the same LoRA matrices, and the reward model of both is the base with the same
random head: in the engine an adapter that changes nothing over the one base, in TRL a second model without one, which
is less work. Nothing here depends on the values of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from engine.data.examples import PromptExample
from engine.methods import grouped
from engine.methods.grouped import GroupedPolicyOptimisation, GroupPlan
from engine.methods.method import ExampleOrder
from engine.methods.rewards import Rewards
from engine.methods.rollout import rollout_seeds, sample_policy
from engine.model.adapters import POLICY, REWARD, RoleModel, build_roles
from engine.model.heads import ScalarHead, ScoreScale
from engine.model.loading import load_causal_lm
from engine.model.sampler import Completion
from engine.model.saving import save_weights
from engine.optimizer import Optimizer
from engine.run.config_grouped import GrpoConfig, RlooConfig
from engine.run.config_layers import resolve
from engine.run.folder import RunFolder
from engine.training_loop import Progress, TrainingLoop
from tests.benchmarks.training_data import END, PAD
from tests.benchmarks.training_sides import ALPHA, BUDGET, CPU, LEARNING_RATE, RANK, clocks, since

KL_COEF, CLIP, EPOCHS = 0.05, 0.2, 2


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    method: str
    """grpo or rloo."""
    precision: str
    prompts: int
    """A round."""
    generations: int
    """Completions of each prompt."""
    new_tokens: int
    """Of a completion at most."""
    rounds: int

    @property
    def dtype(self) -> torch.dtype:
        """Of the base on both sides; adapters are fp32."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def rows(self) -> int:
        """Completions of a round."""
        return self.prompts * self.generations


@dataclass
class Clock:
    """(wall, CPU) seconds of each stage, one entry a round."""

    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what happens within to `stage`."""
        began = clocks()
        yield
        self.seconds.setdefault(stage, []).append(since(began))


@dataclass
class EngineSide:
    """The engine's method in the engine's loop; `answers` is filled in before each round."""

    roles: RoleModel
    loop: TrainingLoop
    clock: Clock
    order: GivenOrder
    answers: list[Completion]
    losses: list[float] = field(default_factory=list)

    def round(self, prompts: list[int], completions: list[list[int]]) -> None:
        """One whole step of the loop on these prompts, with these completions in place of its own."""
        self.order.steps.append(prompts)
        self.answers[:] = [Completion(ids, ids[-1] == END, [0.0] * len(ids)) for ids in completions]
        with self.clock.timed("round"):
            self.losses.append(self.loop._train(len(self.losses))["loss"])


class GivenOrder(ExampleOrder):
    """The prompts of each round as TRL took them."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.prompts, batch_size=plan.prompts, epochs=plan.rounds, steps=0, seed=0)
        self.steps: list[list[int]] = []

    def indices(self, step: int) -> list[int]:
        return self.steps[step]


@dataclass(frozen=True)
class Stops:
    """What the method asks of a tokenizer here."""

    stop_ids: frozenset[int] = frozenset({END})
    pad_id: int = PAD

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def reward_folder(plan: Plan, folder: Path, scratch: Path) -> Path:
    """A reward adapter that changes nothing, and a random head."""
    roles = build_roles(
        load_causal_lm(folder, dtype=plan.dtype, device=CPU),
        kind="lora", trained=REWARD, start_adapter=None, rank=RANK, alpha=ALPHA,
    )  # fmt: skip
    scratch.mkdir(exist_ok=True)
    save_weights(roles, scratch, base_folder=folder, reward_head=ScalarHead(roles.hidden_size, seed=1))
    return scratch


def settings_of(plan: Plan) -> GrpoConfig | RlooConfig:
    """One mini-batch, two epochs, as TRL is set below."""
    shared: dict[str, Any] = {
        "generations": plan.generations, "max_new_tokens": plan.new_tokens, "kl_coef": KL_COEF, "clip": CLIP,
        "clip_high": CLIP, "epochs": EPOCHS, "minibatches": 1, "score_scale": "none", "missing_eos_penalty": 0.0,
    }  # fmt: skip
    if plan.method == "rloo":
        return RlooConfig(**shared)
    return GrpoConfig(**shared, loss_type="dapo", scale_rewards="none", kl_estimator="k3")


def engine_side(plan: Plan, folder: Path, reward: Path, rows: Sequence[list[int]]) -> EngineSide:
    """The engine, ready for its first round."""
    roles = build_roles(
        load_causal_lm(folder, dtype=plan.dtype, device=CPU),
        kind="lora", trained=POLICY, start_adapter=None, rank=RANK, alpha=ALPHA, reward_adapters=[reward],
    )  # fmt: skip
    settings, order, clock = settings_of(plan), GivenOrder(plan), Clock()
    stops: Any = Stops()
    method = GroupedPolicyOptimisation(
        roles, Rewards.of_model(ScalarHead(roles.hidden_size, seed=1).requires_grad_(False), ScoreScale(0.0, 1.0)),
        [PromptExample(str(i), tuple(ids), str(i)) for i, ids in enumerate(rows)], [], order, stops, settings,
        GroupPlan.of_grpo(settings) if isinstance(settings, GrpoConfig) else GroupPlan.of_rloo(settings),
        seed=1, tokens_per_micro_batch=BUDGET, device=CPU, check=lambda: None, on_samples=lambda step, shown: None,
    )  # fmt: skip
    config = resolve(plan.method, []).config
    config = replace(
        config, optim=replace(config.optim, lr=LEARNING_RATE, schedule="constant", warmup_share=0.0, max_grad_norm=1.0)
    )
    # A loop that is asked for its steps alone writes to no run folder and needs nobody to report to.
    nobody: Any = SimpleNamespace(status=lambda **_: None, event=lambda *_, **__: None)
    optimizer = Optimizer(dict(roles.trainable), config.optim, order.total_steps)
    loop = TrainingLoop(
        config, RunFolder(reward), nobody, method, optimizer, None, Progress(), lambda folder: None, lambda: False
    )
    return EngineSide(roles, loop, clock, order, [])


@contextmanager
def answered_by_trl(side: EngineSide) -> Iterator[None]:
    """Within, the engine's sampling is timed and its completions are replaced by `side.answers`."""
    method: Any = grouped
    sample = method.sample_policy

    def timed(*arguments: Any, **options: Any) -> list[Completion]:
        with side.clock.timed("generation"):
            own = sample(*arguments, **options)
        assert len(own) == len(side.answers)
        return list(side.answers)

    method.sample_policy = timed
    try:
        yield
    finally:
        method.sample_policy = sample


def sample_alternately(plan: Plan, folder: Path, rows: Sequence[list[int]], scratch: Path) -> tuple[Clock, Clock]:
    """(TRL's seconds, the engine's) of sampling alone, in turns, from the same policy; nothing is trained.

    TRL's are those of the method with which its trainer samples a round; the engine's count the folding of its adapter.
    """
    roles = build_roles(
        load_causal_lm(folder, dtype=plan.dtype, device=CPU),
        kind="lora", trained=POLICY, start_adapter=None, rank=RANK, alpha=ALPHA,
    )  # fmt: skip
    trainer = trl_side(plan, folder, rows, scratch).trainer
    asked = [i for i in range(plan.prompts) for _ in range(plan.generations)]
    prompts = [PromptExample(str(i), tuple(rows[i]), str(i)) for i in asked]
    more = (plan.generations,) if plan.method == "grpo" else ()
    clock = Clock()
    for number in range(plan.rounds):
        trainer._generate_single_turn([list(rows[i]) for i in asked], None, {}, *more)
        with clock.timed("generation"):
            found = sample_policy(
                roles, prompts, max_new_tokens=plan.new_tokens, temperature=1.0, stop_ids=Stops.stop_ids,
                pad_id=PAD, seeds=rollout_seeds(1, number, len(prompts)),
            )  # fmt: skip
        assert len(found) == len(trainer.answered) == plan.rows
    return trainer.clock, clock


@dataclass
class TrlSide:
    """A trainer of TRL; what it samples fills `prompts` and `completions` while it trains."""

    trainer: Any
    clock: Clock
    prompts: list[int] = field(default_factory=list)
    completions: list[list[int]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def trl_side(plan: Plan, folder: Path, rows: Sequence[list[int]], scratch: Path) -> TrlSide:
    """TRL's trainer over prompts of ids, ready to train."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    judge = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=plan.dtype, num_labels=1).eval()
    with torch.no_grad():
        judge.score.weight.copy_(ScalarHead(judge.config.hidden_size, seed=1).linear.weight)
    special: dict[str, Any] = {"loss_type": "dapo", "scale_rewards": "none"} if plan.method == "grpo" else {}
    config_class, trainer_class = {
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer), "rloo": (trl.RLOOConfig, trl.RLOOTrainer),
    }[plan.method]  # fmt: skip
    arguments = config_class(
        output_dir=str(scratch), per_device_train_batch_size=plan.rows, num_generations=plan.generations,
        max_completion_length=plan.new_tokens, num_iterations=EPOCHS, max_steps=EPOCHS * plan.rounds, beta=KL_COEF,
        epsilon=CLIP, temperature=1.0, gradient_checkpointing=False, bf16=plan.precision == "bf16", use_cpu=True,
        report_to="none", save_strategy="no", disable_tqdm=True, learning_rate=LEARNING_RATE, max_grad_norm=1.0,
        lr_scheduler_type="constant", weight_decay=0.0, logging_strategy="no", **special,
    )  # fmt: skip
    trainer = _of_ids(trainer_class, rows)(
        model=AutoModelForCausalLM.from_pretrained(str(folder), dtype=plan.dtype), args=arguments,
        reward_funcs=_scored_by(judge, rows),
        train_dataset=Dataset.from_list([{"prompt": str(i)} for i in range(len(rows))]),
        processing_class=AutoTokenizer.from_pretrained(str(folder)),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    return TrlSide(trainer, trainer.clock)


def _of_ids(trainer_class: Any, rows: Sequence[list[int]]) -> Any:
    """The trainer for prompts that are numbers of `rows`; its stages are timed and its losses kept."""

    class OfIds(trainer_class):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.clock = Clock()
            self.asked: list[int] = []
            self.answered: list[list[int]] = []
            self.losses: list[float] = []
            super().__init__(*arguments, **options)

        def _tokenize_prompts(self, prompts: list[str]) -> Any:
            self.asked = [int(prompt) for prompt in prompts]
            return [list(rows[i]) for i in self.asked], None, {}

        def _generate_single_turn(self, *arguments: Any, **options: Any) -> Any:
            with self.clock.timed("generation"):
                out = super()._generate_single_turn(*arguments, **options)
            self.answered = [list(ids) for ids in (out[0] if isinstance(out, tuple) else out)]
            return out

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            with self.clock.timed("generation and measuring"):
                return super()._generate_and_score_completions(inputs)

        def training_step(self, *arguments: Any, **options: Any) -> Any:
            loss = super().training_step(*arguments, **options)
            self.losses.append(float(loss.detach()))
            return loss

    return OfIds


def _scored_by(judge: Any, rows: Sequence[list[int]]) -> Callable[..., list[float]]:
    """TRL's own way with a reward model (padded on the right, one pass), for completions that are ids already."""

    def score(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        whole = [[*rows[int(p)], *ids] for p, ids in zip(prompts, completion_ids, strict=True)]
        width = max(map(len, whole))
        padded = torch.tensor([ids + [PAD] * (width - len(ids)) for ids in whole])
        lengths = torch.tensor([[len(ids)] for ids in whole])
        with torch.inference_mode():
            scores: list[float] = judge(
                input_ids=padded, attention_mask=(torch.arange(width) < lengths).long()
            ).logits[:, 0].float().tolist()  # fmt: skip
        return scores

    return score


def begin_alike(engine: EngineSide, trl: TrlSide) -> None:
    """Give TRL's policy the engine's LoRA matrices."""
    theirs = dict(trl.trainer.model.named_parameters())
    with torch.no_grad():
        for name, value in engine.roles.trainable.items():
            theirs["base_model.model." + name.replace(f".{POLICY}.", ".default.")].copy_(value)


def train_alternately(trl: TrlSide, after_round: Callable[[list[int], list[list[int]], list[float]], None]) -> None:
    """Run TRL's whole training; after each round `after_round` is given its prompts, completions and losses."""
    from transformers import TrainerCallback

    trainer = trl.trainer
    began = [clocks()]

    class Alternate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % EPOCHS == 0:
                trl.clock.seconds.setdefault("round", []).append(since(began[0]))
                after_round(trainer.asked, trainer.answered, trainer.losses[-EPOCHS:])
                began[0] = clocks()

    trainer.add_callback(Alternate())
    trainer.train()
