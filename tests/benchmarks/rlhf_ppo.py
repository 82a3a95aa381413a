"""The two sides of the RLHF benchmark in PPO: the trainer of TRL 1.12, the last version that has it, and the engine's.

TRL 1.12 does not stand beside 1.16: it comes from a folder of its own (`pip install --no-deps --target trl112
trl==1.12.0`), which the process of this line has first on its path. Both sides run as they are, in turns, and each
trains on its own rollouts, which all have the full length: what a step is worth is compared with a recording
(`tests/oracles`), here it is timed. A rollout has a prompt of its own. Both hold policy, reference, reward and value
over weights of one shape: in the engine adapters over one base, in TRL a LoRA policy whose reference is its base, and
two models for reward and value, of which the second trains an adapter and its head.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from engine.data.examples import PromptExample
from engine.methods import ppo
from engine.methods.ppo import ProximalPolicyOptimisation
from engine.methods.rewards import Rewards
from engine.model.adapters import POLICY, build_roles
from engine.model.heads import ScalarHead, ScoreScale
from engine.model.loading import load_causal_lm
from engine.optimizer import Optimizer
from engine.run.config_layers import resolve
from engine.run.config_ppo import PpoConfig
from engine.run.folder import RunFolder
from engine.training_loop import Progress, TrainingLoop
from tests.benchmarks.rlhf_sides import CLIP, EPOCHS, KL_COEF, Clock, EngineSide, GivenOrder, Plan, Stops, TrlSide
from tests.benchmarks.training_sides import ALPHA, BUDGET, CPU, LEARNING_RATE, RANK, clocks, since

LAM, VF_COEF = 0.95, 0.1
TRL_VERSION = "1.12.0"


def engine_side(plan: Plan, folder: Path, reward: Path, rows: Sequence[list[int]]) -> EngineSide:
    """The engine, ready for its first round; `rows` has a prompt for each rollout."""
    settings = PpoConfig(
        max_new_tokens=plan.new_tokens, kl_coef=KL_COEF, lam=LAM, clip=CLIP, clip_value=CLIP, epochs=EPOCHS,
        minibatches=1, value_warmup=0, vf_coef=VF_COEF, score_scale="none", missing_eos_penalty=0.0,
    )  # fmt: skip
    roles = build_roles(
        load_causal_lm(folder, dtype=plan.dtype, device=CPU),
        kind="lora", trained=POLICY, start_adapter=None, rank=RANK, alpha=ALPHA, reward_adapters=[reward],
        value_adapter=True,
    )  # fmt: skip
    order = GivenOrder(replace(plan, prompts=plan.rows))
    stops: Any = Stops()
    method = ProximalPolicyOptimisation(
        roles, Rewards.of_model(ScalarHead(roles.hidden_size, seed=1).requires_grad_(False), ScoreScale(0.0, 1.0)),
        [PromptExample(str(i), tuple(ids), str(i)) for i, ids in enumerate(rows)], [], order, stops, settings,
        seed=1, tokens_per_micro_batch=BUDGET, device=CPU, check=lambda: None, on_samples=lambda step, shown: None,
    )  # fmt: skip
    config = resolve("ppo", []).config
    config = replace(config, optim=replace(config.optim, lr=LEARNING_RATE, schedule="constant", warmup_share=0.0))
    parameters = dict(roles.trainable)
    for name, module in method.modules().items():
        parameters.update({f"{name}.{key}": value for key, value in module.named_parameters()})
    nobody: Any = SimpleNamespace(status=lambda **_: None, event=lambda *_, **__: None)
    optimizer = Optimizer(parameters, config.optim, order.total_steps)
    loop = TrainingLoop(
        config, RunFolder(reward), nobody, method, optimizer, None, Progress(), lambda folder: None, lambda: False
    )
    return EngineSide(roles, loop, Clock(), order, [])


@contextmanager
def timed_sampling(side: EngineSide) -> Iterator[None]:
    """Within, the engine's sampling is timed; its rollouts are its own."""
    method: Any = ppo
    sample = method.sample_policy

    def timed(*arguments: Any, **options: Any) -> Any:
        with side.clock.timed("generation"):
            return sample(*arguments, **options)

    method.sample_policy = timed
    try:
        yield
    finally:
        method.sample_policy = sample


def trl_side(plan: Plan, folder: Path, rows: Sequence[list[int]], scratch: Path) -> TrlSide:
    """TRL's trainer over prompts of ids, ready to train. Raises SystemExit where another TRL is installed."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if trl.__version__ != TRL_VERSION:
        raise SystemExit(f"--trl: there is trl {trl.__version__}: pip install --no-deps --target F trl=={TRL_VERSION}")
    module: Any = importlib.import_module("trl.experimental.ppo")
    trainer_module: Any = importlib.import_module("trl.experimental.ppo.ppo_trainer")
    lora = {"r": RANK, "lora_alpha": ALPHA, "target_modules": "all-linear"}
    arguments = module.PPOConfig(
        output_dir=str(scratch), per_device_train_batch_size=plan.rows, gradient_accumulation_steps=1,
        num_mini_batches=1, num_ppo_epochs=EPOCHS, total_episodes=plan.rows * plan.rounds,
        response_length=plan.new_tokens, local_rollout_forward_batch_size=plan.rows, temperature=1.0, kl_coef=KL_COEF,
        lam=LAM, cliprange=CLIP, cliprange_value=CLIP, vf_coef=VF_COEF, learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant", weight_decay=0.0, num_sample_generations=0, report_to="none", use_cpu=True,
        bf16=plan.precision == "bf16", gradient_checkpointing=False, save_strategy="no", eval_strategy="no",
        disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_dict({"input_ids": [list(row) for row in rows]})
    trainer = module.PPOTrainer(
        args=arguments, processing_class=AutoTokenizer.from_pretrained(str(folder), padding_side="left"),
        model=AutoModelForCausalLM.from_pretrained(str(folder), dtype=plan.dtype), ref_model=None,
        reward_model=_judge(plan, folder), value_model=_judge(plan, folder, lora), train_dataset=data,
        eval_dataset=data, peft_config=LoraConfig(task_type="CAUSAL_LM", **lora),
    )  # fmt: skip
    clock = Clock()
    generate = trainer_module.batch_generation

    def timed(*given: Any) -> Any:
        with clock.timed("generation"):
            return generate(*given)

    trainer_module.batch_generation = timed
    return TrlSide(trainer, clock)


def _judge(plan: Plan, folder: Path, lora: dict[str, Any] | None = None) -> Any:
    """A model with the head that both sides have; with `lora` an adapter and the head train, else nothing."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=plan.dtype, num_labels=1).eval()
    model.requires_grad_(False)
    with torch.no_grad():
        model.score.weight.copy_(ScalarHead(model.config.hidden_size, seed=1).linear.weight)
    if lora is not None:
        inject_adapter_in_model(LoraConfig(**lora), model.model)
        model.score.weight.requires_grad_(True)
    return model


def train_alternately(trl: TrlSide, engine: EngineSide, plan: Plan) -> None:
    """Run TRL's whole training; after each of its rounds the engine makes one."""
    from transformers import TrainerCallback

    began = [clocks()]

    class Alternate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trl.clock.seconds.setdefault("round", []).append(since(began[0]))
            engine.order.steps.append(list(range(plan.rows)))
            with engine.clock.timed("round"):
                engine.losses.append(engine.loop._train(len(engine.losses))["loss"])
            began[0] = clocks()

    trl.trainer.add_callback(Alternate())
    with timed_sampling(engine):
        began[0] = clocks()
        trl.trainer.train()
