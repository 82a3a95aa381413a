"""A step of our PPO against one of trl 1.12.0, recorded in tests/oracles on the same weights and completions, fp32.

Our settings are TRL's: the score one state after the end-of-turn, the penalty of a missing end taken off, raw scores,
1e-7 added to the temperature. Where TRL departs from the papers and we do not follow, a test here says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.data.examples import PromptExample
from engine.methods import ppo
from engine.methods.method import ExampleOrder
from engine.methods.ppo import ProximalPolicyOptimisation
from engine.methods.rewards import Rewards
from engine.methods.rollout import RolloutBatch
from engine.model.adapters import POLICY, REWARD, build_roles
from engine.model.heads import ScalarHead, ScoreScale
from engine.model.sampler import Completion
from engine.model.saving import save_weights
from engine.objectives.advantages import generalized_advantages, shaped_rewards, whitened
from engine.objectives.kl import ESTIMATORS
from engine.run.config_ppo import PpoConfig
from tests.engine.methods.ppo_world import Stepper, capture_rollouts, load
from tests.oracles import ppo_trajectories as world

RECORDED = json.loads(world.RECORDING.read_text())
SHAPE: dict[str, Any] = {"kind": "lora", "start_adapter": None, "rank": 2, "alpha": 4.0, "targets": "q_proj,v_proj"}
TOKENS = [len(ids) for ids in world.COMPLETIONS]
Make = Callable[..., ProximalPolicyOptimisation]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The recorded world's base and its reward model's adapter, as a run would find them."""
    from tokenizers import Tokenizer, models
    from transformers.models.llama import LlamaConfig, LlamaForCausalLM

    base, reward = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("reward")
    model = LlamaForCausalLM(LlamaConfig(**world.MODEL))
    world.fill_base(model)
    assert world.fingerprint(model) == RECORDED["fingerprint"], "these are not the weights that TRL was recorded with"
    model.save_pretrained(str(base))
    words = {f"t{i}": i for i in range(world.VOCABULARY)}
    Tokenizer(models.WordLevel(words, unk_token="t2")).save(str(base / "tokenizer.json"))
    judge = build_roles(load(base), trained=REWARD, **SHAPE)
    world.fill_adapter(judge.model, REWARD, "reward")
    save_weights(judge, reward, base_folder=base, reward_head=reward_head())
    return base, reward


def reward_head() -> ScalarHead:
    head = ScalarHead(world.MODEL["hidden_size"])
    head.load_state_dict({"linear.weight": world.head_weight()})
    return head.requires_grad_(False)


@pytest.fixture
def make(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Make:
    """`make(name, completions, **changes)`: our PPO with TRL's settings of that recording."""
    base, reward = folders

    def build(name: str, completions: list[list[int]], **changes: Any) -> ProximalPolicyOptimisation:
        settings = dict(world.SETTINGS[name])
        settings["missing_eos_penalty"] = settings["missing_eos_penalty"] or 0.0
        roles = build_roles(load(base), trained=POLICY, reward_adapters=[reward], value_adapter=True, **SHAPE)
        world.fill_adapter(roles.model, POLICY, "policy")
        drawn = [Completion(ids, ids[-1] == world.EOS, [0.0] * len(ids)) for ids in completions]
        monkeypatch.setattr(ppo, "sample_policy", lambda *_, **__: drawn)
        method = ProximalPolicyOptimisation(
            roles, Rewards.of_model(reward_head(), ScoreScale(0.0, 1.0)),
            [PromptExample(str(i), tuple(ids), "") for i, ids in enumerate(world.PROMPTS)], [],
            InOrder(), SimpleNamespace(stop_ids=frozenset({world.EOS}), pad_id=world.PAD, decode=str),  # type: ignore[arg-type]
            PpoConfig(
                temperature=world.TEMPERATURE + 1e-7, score_scale="none", epochs=2, value_warmup=0,
                **{"minibatches": 1, "score_at": "post_eos", **settings, **changes},
            ),
            seed=1, tokens_per_micro_batch=1000, device=torch.device("cpu"), check=lambda: None,
            on_samples=lambda step, rows: None,
        )  # fmt: skip
        method.value.head.linear.bias.requires_grad_(False)  # TRL's head has none
        return method

    return build


class InOrder(ExampleOrder):
    """Every prompt once, as they were recorded."""

    def __init__(self) -> None:
        super().__init__(len(world.PROMPTS), batch_size=len(world.PROMPTS), epochs=1, steps=1, seed=0)

    def indices(self, step: int) -> list[int]:
        return list(range(len(world.PROMPTS)))


def flat(rows: list[list[float]], lengths: list[int] | None = None) -> torch.Tensor:
    return torch.cat([torch.tensor(row[: n or None]) for row, n in zip(rows, lengths or [0] * len(rows), strict=True)])


@pytest.mark.parametrize("name", world.SETTINGS)
class TestOneStep:
    def test_the_functions_on_what_trl_measured(self, name: str) -> None:
        """From recorded log-probs, values and scores alone to rewards, advantages and returns."""
        told, settings = RECORDED["recordings"][name], world.SETTINGS[name]
        states = [len(row) for row in told["rewards"]]
        assert states == [n + (ids[-1] == world.EOS) for n, ids in zip(TOKENS, world.COMPLETIONS, strict=True)]
        kl_S = ESTIMATORS[settings["kl_estimator"]](flat(told["logprobs"]), flat(told["ref_logprobs"]))
        last_D = torch.tensor(states).cumsum(0) - 1
        rewards_S = shaped_rewards(kl_S, torch.tensor(told["scores"]), last_D, kl_coef=settings["kl_coef"])
        assert torch.allclose(rewards_S, flat(told["rewards"]), rtol=1e-5, atol=1e-6)
        advantages_S, returns_S = generalized_advantages(
            rewards_S, flat(told["values"]), states, gamma=settings["gamma"], lam=settings["lam"]
        )
        assert torch.allclose(returns_S, flat(told["returns"]), rtol=1e-5, atol=1e-6)
        actions = torch.cat([torch.arange(s) < n for s, n in zip(states, TOKENS, strict=True)])
        assert torch.allclose(whitened(advantages_S[actions]), flat(told["advantages"], TOKENS), rtol=1e-4, atol=1e-5)

    def test_what_is_measured_of_rollouts(self, make: Make, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        told = RECORDED["recordings"][name]
        captured = capture_rollouts(monkeypatch)
        list(make(name, world.COMPLETIONS).updates(0))
        (b,) = captured
        for found, recorded in (
            (b.log_probs_N, flat(told["logprobs"], TOKENS)),
            (b.reference_N, flat(told["ref_logprobs"], TOKENS)),
            (b.score_D, torch.tensor(told["scores"])),
            (b.values_S, flat(told["values"])),
            (b.returns_S, flat(told["returns"])),
            (b.advantages_N, flat(told["advantages"], TOKENS)),
        ):
            assert torch.allclose(found, recorded, rtol=1e-4, atol=1e-5)

    def test_losses_and_gradients(self, make: Make, name: str) -> None:
        """The losses of the first epoch and of the second, behind a step of AdamW; the first gradients."""
        told = RECORDED["recordings"][name]
        stepper = Stepper(make(name, world.COMPLETIONS), lr=world.LEARNING_RATE)
        first, second = stepper.step(0)
        for found, recorded, close in ((first, told["losses"][0], 1e-5), (second, told["losses"][1], 1e-4)):
            # The first policy loss is minus the mean of whitened advantages over all tokens: 0 but for rounding.
            assert found["loss/policy_avg"] == pytest.approx(recorded["pg_loss"], rel=close, abs=1e-6)
            assert found["loss/value_avg"] == pytest.approx(recorded["vf_loss"], rel=close)
        ours = {}
        for key, gradient in stepper.gradients[0].items():
            role = "policy" if ".policy." in key else "value"
            ours[f"{role}/head" if key.startswith("head.") else f"{role}/{world.place(key.replace('/', '.'))}"] = (
                gradient
            )
        # Ours is the gradient of the mean loss times vf_coef, TRL's too.
        assert set(ours) == set(told["gradients"])
        for key, recorded in told["gradients"].items():
            assert torch.allclose(ours[key].flatten(), torch.tensor(recorded), rtol=1e-3, atol=1e-6), key


class TestWhereTrlDeparts:
    def test_it_steps_once_an_epoch_whatever_num_mini_batches_says(self, make: Make) -> None:
        """Its batch is per_device_train_batch_size x gradient_accumulation_steps, and accelerate steps when all of that
        is done (huggingface/trl#5645): its mini-batches only cut the accumulation. Ours are optimizer steps."""
        assert RECORDED["two_mini_batches"] == [2, 4]  # optimizer steps, backward passes; two epochs of two
        assert len(Stepper(make("k1", world.COMPLETIONS, minibatches=2)).step(0)) == 4

    def test_the_longest_completion_of_a_batch_gets_its_score_elsewhere(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One state after its end-of-turn lies outside the padded batch, so its score is put on the end-of-turn.

        Where a score lands must not depend on the neighbours: with post_eos ours always has the state behind it."""
        told = RECORDED["longest_ends"]
        tokens = [len(ids) for ids in world.LONGEST_ENDS]
        assert [len(row) - n for row, n in zip(told["rewards"], tokens, strict=True)] == [1, 0, 1, 1]
        captured: list[RolloutBatch] = capture_rollouts(monkeypatch)
        list(make("k1", world.LONGEST_ENDS).updates(0))
        assert captured[0].states.lengths == tuple(n + 1 for n in tokens)

    def test_the_score_on_the_last_token_is_the_default(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """The end-of-turn is the action that ends the episode; a state behind it would need a value of its own."""
        assert PpoConfig().score_at == "eos"
        captured: list[RolloutBatch] = capture_rollouts(monkeypatch)
        list(make("k1", world.COMPLETIONS, score_at="eos").updates(0))
        assert captured[0].states.lengths == tuple(len(ids) for ids in world.COMPLETIONS)
