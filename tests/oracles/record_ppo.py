"""Records a step of TRL 1.12's PPO on fixed completions, two epochs of it, as JSON.

    python -m tests.oracles.record_ppo        in an environment with trl==1.12.0, see README.md beside this file

TRL's trainer runs as it is. Three things are put in its place: sampling (fixed completions, scored by the policy's own
forward pass, as `generate` would), the shuffling of an epoch (rows stay in order; the call is where its local variables
are read) and `accelerator.backward` (where the losses and then the gradients are read).
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig, inject_adapter_in_model
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from tests.oracles import ppo_trajectories as world

PER_TOKEN = ("logprobs", "ref_logprobs", "values", "rewards", "advantages", "returns")


def judge() -> LlamaForSequenceClassification:
    """Reward or value model: the base under the reward adapter, with the head."""
    model = LlamaForSequenceClassification(LlamaConfig(**world.MODEL, num_labels=1))
    world.fill_base(model.model)
    inject_adapter_in_model(LoraConfig(**world.LORA), model.model)
    world.fill_adapter(model, "default", "reward")
    with torch.no_grad():
        model.score.weight.copy_(world.head_weight())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith("score"))
    return model.eval()


def make_trainer(scratch: str, settings: dict[str, Any], prompts: list[list[int]]) -> Any:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({f"t{i}": i for i in range(world.VOCABULARY)}, unk_token="t2")),
        pad_token=f"t{world.PAD}", eos_token=f"t{world.EOS}", padding_side="left",
    )  # fmt: skip
    policy = LlamaForCausalLM(LlamaConfig(**world.MODEL))
    world.fill_base(policy)
    arguments = {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "num_mini_batches": 1, "num_ppo_epochs": 2,
        "total_episodes": 4, "response_length": world.RESPONSE_LENGTH, "stop_token": "eos",
        "temperature": world.TEMPERATURE, "learning_rate": world.LEARNING_RATE, "lr_scheduler_type": "constant",
        "weight_decay": 0.0, "num_sample_generations": 0, "report_to": "none", "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "save_strategy": "no", "eval_strategy": "no", "disable_tqdm": True, **settings,
    }  # fmt: skip
    trainer = PPOTrainer(
        args=PPOConfig(output_dir=scratch, **arguments), processing_class=tokenizer, model=policy, ref_model=None,
        reward_model=judge(), value_model=judge(), train_dataset=Dataset.from_dict({"input_ids": prompts}),
        eval_dataset=Dataset.from_dict({"input_ids": prompts}), peft_config=LoraConfig(**world.LORA),
    )  # fmt: skip
    world.fill_adapter(trainer.policy_model, "default", "policy")
    return trainer


class Recorder:
    """What TRL holds in its local variables, by prompt and not in its order of rows."""

    def __init__(self, completions: list[list[int]]) -> None:
        self.completions = completions
        self.rows: list[int] = []
        self.tensors: dict[str, Any] = {}
        self.losses: list[dict[str, float]] = []
        self.gradients: dict[str, list[float]] = {}

    def generate(self, model: Any, queries: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        prompts = [[int(i) for i in row if i != world.PAD] for row in queries]
        self.rows = [world.PROMPTS.index(prompt) for prompt in prompts]
        width = max(map(len, self.completions))
        answers = torch.tensor([c + [world.PAD] * (width - len(c)) for c in (self.completions[r] for r in self.rows)])
        whole = torch.cat([queries, answers], dim=1)
        logits = ppo_trainer.forward(model, whole, world.PAD).logits[:, queries.shape[1] - 1 : -1]
        return whole, logits / (world.TEMPERATURE + 1e-7)

    def permutation(self, count: int) -> np.ndarray[Any, Any]:
        here = sys._getframe(1).f_locals
        if not self.tensors:
            states = (~here["padding_mask_p1"]).sum(1).tolist()
            self.tensors = {
                name: self.by_prompt([here[name][i, :n].tolist() for i, n in enumerate(states)]) for name in PER_TOKEN
            }
            self.tensors["scores"] = self.by_prompt(here["scores"].tolist())
        return np.arange(count)

    def by_prompt(self, rows: list[Any]) -> list[Any]:
        return [rows[self.rows.index(i)] for i in range(len(self.rows))]

    def backward(self, trainer: Any, real: Any) -> Any:
        def run(loss: torch.Tensor) -> None:
            here = sys._getframe(1).f_locals
            real(loss)
            self.losses.append({key: float(here[key].detach()) for key in ("pg_loss", "vf_loss", "loss")})
            if self.gradients:
                return
            for role, part in (("policy", trainer.policy_model), ("value", trainer.value_model)):
                for name, parameter in part.named_parameters():
                    if parameter.grad is not None:
                        key = world.place(name) if "lora_" in name else "head"
                        self.gradients[f"{role}/{key}"] = parameter.grad.flatten().tolist()

        return run


def record(completions: list[list[int]], settings: dict[str, Any], *, gradients: bool = True) -> dict[str, Any]:
    """One rollout batch and its two epochs."""
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(scratch, settings, world.PROMPTS)
        recorder = Recorder(completions)
        trainer.accelerator.backward = recorder.backward(trainer, trainer.accelerator.backward)
        with (
            mock.patch.object(ppo_trainer, "batch_generation", recorder.generate),
            mock.patch.object(np.random, "permutation", recorder.permutation),
        ):
            trainer.train()
    found = {**recorder.tensors, "losses": recorder.losses}
    return {**found, "gradients": recorder.gradients} if gradients else found


def optimizer_steps(settings: dict[str, Any]) -> list[int]:
    """Optimizer steps and backward passes over the first of two rollout batches of 4, of 2 epochs each.

    Two, because accelerate steps at every micro-batch of the last batch that a data loader has.
    """
    steps: list[int] = []
    at_rollout: list[tuple[int, int]] = []
    recorder = Recorder(world.COMPLETIONS)

    def generate(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        at_rollout.append((len(steps), len(recorder.losses)))
        return recorder.generate(*arguments)

    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(scratch, {**settings, "total_episodes": 8}, world.PROMPTS * 2)
        trainer.accelerator.backward = recorder.backward(trainer, trainer.accelerator.backward)
        trainer.optimizer.optimizer.register_step_post_hook(lambda *_: steps.append(1))
        with mock.patch.object(ppo_trainer, "batch_generation", generate):
            trainer.train()
    return list(at_rollout[1])


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def main() -> None:
    base = LlamaForCausalLM(LlamaConfig(**world.MODEL))
    world.fill_base(base)
    torch.set_num_threads(1)
    recording = {
        "versions": {
            "trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
            "python": platform.python_version(),
        },
        "fingerprint": world.fingerprint(base),
        "recordings": {name: record(world.COMPLETIONS, settings) for name, settings in world.SETTINGS.items()},
        "longest_ends": record(world.LONGEST_ENDS, world.SETTINGS["k1"], gradients=False),
        "two_mini_batches": optimizer_steps(
            {
                **world.SETTINGS["k1"], "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
                "num_mini_batches": 2,
            }
        ),
    }  # fmt: skip
    world.RECORDING.write_text(json.dumps(rounded(recording)) + "\n")


if __name__ == "__main__":
    main()
