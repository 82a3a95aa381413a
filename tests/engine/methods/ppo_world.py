"""PPO and GRPO on the tiny model: a policy that has left its reference, a reward model, prompts, a loop of steps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from engine.data.chat import ChatTokenizer
from engine.data.examples import PromptExample
from engine.methods import ppo
from engine.methods.grouped import GroupedPolicyOptimisation, GroupPlan
from engine.methods.method import ExampleOrder, Meter
from engine.methods.ppo import ProximalPolicyOptimisation
from engine.methods.rewards import Rewards
from engine.methods.rollout import RolloutBatch
from engine.model.adapters import POLICY, REWARD, build_roles
from engine.model.heads import ScalarHead, ScoreScale
from engine.model.loading import load_causal_lm
from engine.model.saving import save_weights
from engine.run.config_grouped import GrpoConfig, RlooConfig
from engine.run.config_ppo import PpoConfig

MEAN, STD = 0.4, 2.0
PROMPTS = [PromptExample(f"p{i}", (10 + i, 20, 30 + i), f"prompt {i}") for i in range(8)]


def write_reward_model(folder: Path, into: Path) -> ScalarHead:
    """A LoRA reward model over `folder`, shaken, in `into`; its head."""
    judge = build_roles(load(folder), kind="lora", trained=REWARD, start_adapter=None, rank=4)
    shake(judge.trainable, seed=4)
    head = ScalarHead(32, seed=3)
    save_weights(judge, into, base_folder=folder, reward_head=head)
    return head


def make_ppo(
    folder: Path, scratch: Path, settings: PpoConfig, *, shaken: bool = True, kind: str = "lora"
) -> ProximalPolicyOptimisation:
    """PPO as a run would build it, whose policy has moved where it is `shaken`."""
    head = write_reward_model(folder, scratch)
    roles = build_roles(
        load(folder), kind=kind, trained=POLICY, start_adapter=None, rank=4, reward_adapters=[scratch],
        value_adapter=settings.value_model == "adapter",
    )  # fmt: skip
    if shaken:
        shake(roles.trainable, seed=2)
    return ProximalPolicyOptimisation(
        roles, Rewards.of_model(head.requires_grad_(False), ScoreScale(MEAN, STD)), PROMPTS, [],
        ExampleOrder(8, batch_size=8, epochs=1, steps=8, seed=1), tokenizer_of(folder),
        settings, seed=1, tokens_per_micro_batch=30, device=torch.device("cpu"),
        check=lambda: None, on_samples=lambda step, rows: None,
    )  # fmt: skip


def make_grouped(
    folder: Path, scratch: Path, settings: GrpoConfig | RlooConfig, plan: GroupPlan
) -> GroupedPolicyOptimisation:
    """GRPO or RLOO as a run would build it, whose policy has moved."""
    head = write_reward_model(folder, scratch)
    roles = build_roles(
        load(folder), kind="lora", trained=POLICY, start_adapter=None, rank=4, reward_adapters=[scratch]
    )
    shake(roles.trainable, seed=2)
    return GroupedPolicyOptimisation(
        roles, Rewards.of_model(head.requires_grad_(False), ScoreScale(MEAN, STD)), PROMPTS, PROMPTS[:2],
        ExampleOrder(8, batch_size=4, epochs=1, steps=8, seed=1), tokenizer_of(folder), settings, plan,
        seed=1, tokens_per_micro_batch=30, device=torch.device("cpu"),
        check=lambda: None, on_samples=lambda step, rows: None,
    )  # fmt: skip


def tokenizer_of(folder: Path) -> Any:
    """The folder's, but that so many tokens end an answer that some answers of six tokens end and some do not."""
    tokenizer = ChatTokenizer.from_folder(folder)
    return SimpleNamespace(stop_ids=frozenset(range(45)), pad_id=tokenizer.pad_id, decode=tokenizer.decode)


def load(folder: Path) -> Any:
    return load_causal_lm(folder, dtype=torch.float32, device="cpu")


def shake(parameters: dict[str, torch.nn.Parameter], seed: int) -> None:
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * 0.1)


class Stepper:
    """Runs the updates of a method as the training loop does, and keeps what each measured."""

    def __init__(self, method: ProximalPolicyOptimisation, lr: float = 1e-2) -> None:
        self.method = method
        self.parameters = {**method._roles.trainable, **dict(method.value.named_parameters())}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=lr, weight_decay=0.0)
        self.gradients: list[dict[str, torch.Tensor]] = []

    def step(self, number: int) -> list[dict[str, float]]:
        """All updates of a step: the metrics of each."""
        found = []
        for update in self.method.updates(number):
            meter = Meter()
            for run in update.micro_batches:
                terms = run()
                torch.stack([terms.losses[key] / update.counts[key] for key in terms.losses]).sum().backward()
                meter.add(terms.metrics)
            self.gradients.append({n: p.grad.clone() for n, p in self.parameters.items() if p.grad is not None})
            self.optimizer.step()
            self.optimizer.zero_grad()
            found.append(meter.read())
        return found


def capture_rollouts(monkeypatch: Any) -> list[RolloutBatch]:
    """A list that every measured rollout batch is added to."""
    captured: list[RolloutBatch] = []
    measure = ppo.measure

    def capture(*arguments: Any, **options: Any) -> list[RolloutBatch]:
        found = measure(*arguments, **options)
        captured.extend(found)
        return found

    monkeypatch.setattr(ppo, "measure", capture)
    return captured
