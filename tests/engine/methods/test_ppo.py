"""PPO's rollouts and updates: scores, advantages and returns against their definitions, early ends, what moves what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.methods import ppo
from engine.methods.kl_coefficient import KlCoefficient
from engine.methods.ppo import ProximalPolicyOptimisation
from engine.methods.rewards import Term
from engine.methods.rollout import RolloutBatch, rollout_seeds
from engine.methods.score_rules import ScoreRules
from engine.model.adapters import REWARD
from engine.model.heads import ScoreScale
from engine.model.sampler import Completion
from engine.run.config_ppo import PpoConfig
from tests.engine.methods.ppo_world import MEAN, PROMPTS, STD, Stepper, capture_rollouts, make_ppo

SETTINGS = PpoConfig(
    max_new_tokens=6, minibatches=3, epochs=2, kl_coef=0.3, lam=0.7, missing_eos_penalty=0.5, value_warmup=0
)
Make = Callable[..., ProximalPolicyOptimisation]


@pytest.fixture
def make(tiny_model_folder: Path, tmp_path: Path) -> Make:
    """`make(shaken=…, **changes of SETTINGS)`: PPO on the tiny model."""

    def build(shaken: bool = True, **changes: Any) -> ProximalPolicyOptimisation:
        return make_ppo(tiny_model_folder, tmp_path, dataclasses.replace(SETTINGS, **changes), shaken=shaken)

    return build


def _head_of(method: ProximalPolicyOptimisation) -> Any:
    start = method._rewards.value_start
    assert start is not None
    return start[0].head


@pytest.fixture
def batches(make: Make, monkeypatch: pytest.MonkeyPatch) -> tuple[list[RolloutBatch], Any, list[Any]]:
    """One step of PPO on a policy that has left its reference: its measured rollouts, its method, its updates."""
    captured = capture_rollouts(monkeypatch)
    method = make()
    updates = [(dict(u.counts), len(u.micro_batches)) for u in method.updates(0)]
    return captured, method, updates


def by_definition(
    b: RolloutBatch, *, post_eos: bool, settings: PpoConfig = SETTINGS
) -> tuple[list[float], list[float]]:
    """Advantages of every token and returns of every state, summed as GAE is defined."""
    advantages, returns = [], []
    tokens = states = 0
    for d, length in enumerate(b.batch.targets_per_document):
        extra = int(post_eos and b.stopped[d])
        kl = (b.log_probs_N - b.reference_N)[tokens : tokens + length].tolist() + [0.0] * extra
        rewards = [-settings.kl_coef * x for x in kl]
        rewards[-1] += float(b.score_D[d])
        n = length + extra
        values = [*b.values_S[states : states + n].tolist(), 0.0]
        delta = [rewards[t] + settings.gamma * values[t + 1] - values[t] for t in range(n)]
        decay = settings.gamma * settings.lam
        found = [sum(decay ** (k - t) * delta[k] for k in range(t, n)) for t in range(n)]
        advantages += found[:length]
        returns += [a + v for a, v in zip(found, values, strict=False)]
        tokens, states = tokens + length, states + n
    return advantages, returns


@pytest.mark.parametrize("score_at", ["eos", "post_eos"])
def test_advantages_and_returns_follow_their_definition(
    make: Make, monkeypatch: pytest.MonkeyPatch, score_at: str
) -> None:
    captured = capture_rollouts(monkeypatch)
    updates = [dict(u.counts) for u in make(score_at=score_at).updates(0)]
    raw: list[float] = []
    for b in captured:
        advantages, returns = by_definition(b, post_eos=score_at == "post_eos")
        assert torch.allclose(b.returns_S, torch.tensor(returns), atol=1e-5)
        raw += advantages
    whole = torch.tensor(raw)
    expected = (whole - whole.mean()) / whole.std()
    assert torch.allclose(torch.cat([b.advantages_N for b in captured]), expected, atol=1e-4)
    ended = sum(sum(b.stopped) for b in captured)
    assert 0 < ended < len(PROMPTS)
    extra = ended if score_at == "post_eos" else 0
    assert sum(counts["states"] - counts["tokens"] for counts in updates[:3]) == extra


def test_scores_are_normalised_and_a_missing_end_costs(batches: Any) -> None:
    captured, method, _ = batches
    cut_off = []
    for b in captured:
        judged = method._roles.hidden(b.batch, REWARD)[b.batch.last_rows_D]
        raw = _head_of(method)(judged)
        stops = b.batch.ids_T[b.batch.last_rows_D]
        missing = torch.tensor([0.0 if int(i) in method._tokenizer.stop_ids else 1.0 for i in stops])
        cut_off += missing.tolist()
        assert torch.allclose(b.score_D, (raw - MEAN) / STD - SETTINGS.missing_eos_penalty * missing, atol=1e-5)
    assert 1.0 in cut_off


def test_every_mini_batch_has_its_own_exact_count(batches: Any) -> None:
    captured, _, updates = batches
    tokens = [sum(len(b.batch.targets_N) for b in captured if b.mini_batch == k) for k in range(3)]
    assert [counts["tokens"] for counts, _ in updates[:3]] == tokens
    assert sorted(counts["tokens"] for counts, _ in updates[3:]) == sorted(map(float, tokens))
    assert sum(passes for _, passes in updates) == 2 * 2 * len(captured)  # epochs, and a pass each for policy and value


@pytest.mark.parametrize("value_model", ["adapter", "head"])
def test_the_value_begins_as_the_normalised_reward(
    make: Make, monkeypatch: pytest.MonkeyPatch, value_model: str
) -> None:
    captured = capture_rollouts(monkeypatch)
    method = make(value_model=value_model)
    list(method.updates(0))
    for b in captured:
        raw = _head_of(method)(method._roles.hidden(b.batch, REWARD)[b.states.rows_S])
        assert torch.allclose(b.values_S, (raw - MEAN) / STD, atol=1e-5)


def test_the_first_mini_batch_has_ratio_1_and_nothing_clipped_bit_for_bit(make: Make) -> None:
    method = make()
    first, *later = Stepper(method).step(0)
    assert first["val/first_ratio_deviation"] == 0.0
    assert first["policy/approxkl_avg"] == 0.0
    assert first["policy/clipfrac_avg"] == 0.0
    assert later[-1]["policy/approxkl_avg"] > 0.0


def test_the_first_kl_to_the_reference_is_0_bit_for_bit(make: Make) -> None:
    method = make(shaken=False)
    list(method.updates(0))
    assert float(method.step_metrics()["objective/kl"][0]) == 0.0


def test_rollouts_that_are_all_the_same_break_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token each, as a policy that has collapsed would answer: nothing is divided by what is not there."""
    monkeypatch.setattr(
        ppo, "sample_policy", lambda roles, prompts, **_: [Completion([7], True, [-1.0])] * len(prompts)
    )
    stepper = Stepper(make(shaken=False, kl_coef=0.0))
    for step in range(2):
        for found in stepper.step(step):
            assert all(math.isfinite(value) for value in found.values())
    assert all(bool(gradient.isfinite().all()) for found in stepper.gradients for gradient in found.values())
    assert all(math.isfinite(float(total)) for total, _ in stepper.method.step_metrics().values())


class TestWhatLearnsFromWhat:
    """Each loss moves its own weights, and no pass in between costs a gradient."""

    @pytest.mark.parametrize("value_model", ["adapter", "head"])
    def test_the_value_loss_leaves_the_policy_alone(self, make: Make, value_model: str) -> None:
        method = make(value_model=value_model)
        stepper = Stepper(method)
        with_value = self.first_gradients(stepper)
        alone = self.first_gradients(Stepper(make(value_model=value_model, vf_coef=0.0)))
        policy = set(method._roles.trainable)
        assert policy <= set(with_value)
        assert all(torch.equal(with_value[name], alone[name]) for name in policy)
        assert all(float(with_value[name].abs().max()) > 0 for name in with_value if name not in policy)
        assert any(name.startswith("adapter.") for name in with_value) == (value_model == "adapter")

    def test_recomputed_activations_are_those_of_their_role(self, make: Make) -> None:
        kept = self.first_gradients(Stepper(make()))
        method = make()
        method._roles.checkpointing = True
        again = self.first_gradients(Stepper(method))
        assert set(kept) == set(again)
        assert all(torch.equal(kept[name], again[name]) for name in kept)

    def test_base_reward_model_and_reference_stay_as_they_are(self, make: Make) -> None:
        method = make()
        stepper = Stepper(method)
        moving = {id(p) for p in stepper.parameters.values()}
        frozen = {n: p.clone() for n, p in method._roles.model.named_parameters() if id(p) not in moving}
        frozen["head"] = _head_of(method).linear.weight.clone()
        assert any(".reward." in name for name in frozen)
        stepper.step(0)
        now = {**dict(method._roles.model.named_parameters()), "head": _head_of(method).linear.weight}
        assert all(torch.equal(frozen[name], now[name]) for name in frozen)
        assert not any(now[name].requires_grad for name in frozen)

    @staticmethod
    def first_gradients(stepper: Stepper) -> dict[str, torch.Tensor]:
        stepper.step(0)
        return stepper.gradients[0]


class TestValueWarmup:
    def test_the_policy_does_not_move_and_the_value_does(self, make: Make) -> None:
        method = make(value_warmup=1, value_warmup_epochs=3, kl_control="adaptive", kl_target=0.001, kl_horizon=8.0)
        stepper = Stepper(method)
        before = {name: p.clone() for name, p in stepper.parameters.items()}
        found = stepper.step(0)
        assert len(found) == 3 * SETTINGS.minibatches
        assert found[-1]["loss/value_avg"] < found[0]["loss/value_avg"]
        assert "loss/policy_avg" not in found[0]
        assert method.step_metrics()["policy/updates"] == (0.0, 1.0)
        for name, p in stepper.parameters.items():
            assert torch.equal(p, before[name]) == (name in method._roles.trainable)
        assert float(method._kl_coefficient.value) == SETTINGS.kl_coef

    def test_it_moves_further_than_the_clip_allows(self, make: Make) -> None:
        """Nothing follows the value yet, so nothing holds it back; a clip of 1e-6 would stop it after one update."""
        free = Stepper(make(value_warmup=1, clip_value=1e-6)).step(0)
        assert all(metrics["val/clipfrac_avg"] == 0.0 for metrics in free)

    def test_the_policy_learns_from_the_step_behind_it(self, make: Make) -> None:
        stepper = Stepper(make(value_warmup=1, value_warmup_epochs=1))
        stepper.step(0)
        first = stepper.step(1)[0]
        assert first["val/first_ratio_deviation"] == 0.0


class TestEarlyEnd:
    """target_kl is compared with the mean over a whole mini-batch, whatever its cut into micro-batches."""

    def test_updates_end_after_the_first_mini_batch_beyond_the_target(self, make: Make) -> None:
        whole = [m["policy/approxkl_avg"] for m in Stepper(make(minibatches=1, epochs=6), lr=1e-2).step(0)]
        assert whole[0] == 0.0
        assert max(whole[1:3]) < whole[3]
        target = 0.5 * (max(whole[1:3]) + whole[3])
        method = make(minibatches=1, epochs=6, target_kl=target)
        assert len(Stepper(method, lr=1e-2).step(0)) == 4
        assert method.step_metrics()["policy/updates"] == (4.0, 1.0)

    def test_a_micro_batch_beyond_it_does_not_end_what_its_mini_batch_is_not(self, make: Make) -> None:
        """The largest mean of a micro-batch is above the target, that of the mini-batch below it: updates go on."""
        method = make(minibatches=1, epochs=2)
        parts = []
        terms = method._policy_terms

        def seen(b: RolloutBatch, *, first: bool) -> Any:
            found = terms(b, first=first)
            kl, n = found.metrics["policy/approxkl_avg"]
            parts.append(float(kl) / n)
            return found

        method._policy_terms = seen
        mean = Stepper(method).step(0)[1]["policy/approxkl_avg"]
        assert mean < max(parts)
        between = 0.5 * (mean + max(parts))
        assert len(Stepper(make(minibatches=1, epochs=3, target_kl=between)).step(0)) == 3


class TestScoreRules:
    raw = torch.tensor([1.0, 3.0, 5.0, 7.0])
    stopped = (True, True, False, True)

    def rules(self, **settings: Any) -> ScoreRules:
        return ScoreRules(PpoConfig(**settings), [Term("only", 1.0, ScoreScale(MEAN, STD))])

    def test_running_scale_is_that_of_all_scores_so_far(self) -> None:
        rules = self.rules(score_scale="running", missing_eos_penalty=0.0)
        rules.observe(self.raw[:, None])
        assert rules.scores(self.raw[:, None], self.stopped).tolist() == pytest.approx(
            [-3 / 5**0.5, -1 / 5**0.5, 1 / 5**0.5, 3 / 5**0.5]
        )
        rules.observe(torch.tensor([[10.0], [20.0]]))
        whole = torch.tensor([1.0, 3, 5, 7, 10, 20], dtype=torch.float64)
        expected = (self.raw.double() - whole.mean()) / whole.std(unbiased=False)
        assert torch.allclose(rules.scores(self.raw[:, None], self.stopped).double(), expected)

    def test_held_out_scores_keep_the_reward_models_unit(self) -> None:
        rules = self.rules(score_scale="running", missing_eos_penalty=0.0)
        rules.observe(self.raw[:, None])
        assert torch.allclose(rules.scores(self.raw[:, None], self.stopped, training=False), (self.raw - MEAN) / STD)

    def test_equal_scores_have_no_scale_and_stay_finite(self) -> None:
        rules = self.rules(score_scale="running")
        rules.observe(torch.full((4, 1), 2.5))
        assert rules.scores(torch.full((4, 1), 2.5), (True,) * 4).tolist() == [0.0] * 4

    def test_what_was_seen_is_saved(self) -> None:
        rules, again = self.rules(score_scale="running"), self.rules(score_scale="running")
        rules.observe(self.raw[:, None])
        again.load_state_dict(rules.state_dict())
        assert torch.equal(rules.scores(self.raw[:, None], self.stopped), again.scores(self.raw[:, None], self.stopped))

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"score_scale": "none", "missing_eos_penalty": 2.0}, [1.0, 3.0, 3.0, 7.0]),
            ({"score_scale": "none", "missing_eos": "replace", "missing_eos_penalty": 2.0}, [1.0, 3.0, -2.0, 7.0]),
            ({"score_scale": "none", "missing_eos_penalty": 2.0, "score_clip": 4.0}, [1.0, 3.0, 3.0, 4.0]),
            ({"missing_eos": "replace"}, [0.3, 1.3, -1.0, 3.3]),
        ],
    )
    def test_the_rule_for_a_missing_end_and_the_clip(self, settings: dict[str, Any], expected: list[float]) -> None:
        assert self.rules(**settings).scores(self.raw[:, None], self.stopped).tolist() == pytest.approx(expected)


class TestKlCoefficient:
    def test_it_is_steered_as_ziegler_et_al_did(self) -> None:
        weight = KlCoefficient(0.1, target=6.0, horizon=1000.0)
        weight.steer(torch.tensor(6.6), 100)  # e = 0.1
        assert float(weight.value) == pytest.approx(0.1 * 1.01)
        weight.steer(torch.tensor(60.0), 100)  # e = 0.2, clipped
        assert float(weight.value) == pytest.approx(0.1 * 1.01 * 1.02)
        weight.steer(torch.tensor(0.0), 500)  # e = -0.2
        assert float(weight.value) == pytest.approx(0.1 * 1.01 * 1.02 * 0.9)

    def test_a_fixed_one_stays(self) -> None:
        weight = KlCoefficient(0.1, target=0.0, horizon=1000.0)
        weight.steer(torch.tensor(60.0), 100)
        assert float(weight.value) == 0.1

    def test_it_counts_from_the_next_step_on_and_is_saved(self, make: Make) -> None:
        method = make(kl_control="adaptive", kl_target=0.01, kl_horizon=8.0)
        list(method.updates(0))
        assert float(method.step_metrics()["objective/kl_coef"][0]) == pytest.approx(SETTINGS.kl_coef)
        list(method.updates(1))
        steered = float(method.step_metrics()["objective/kl_coef"][0])
        assert steered == pytest.approx(SETTINGS.kl_coef * 1.2)
        assert set(method.modules()["kl_coefficient"].state_dict()) == {"value"}


def test_a_kl_in_the_loss_is_not_in_the_reward(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Returns without KL, and a gradient that differs from none by the KL's own: kl_coef times that of k2's mean."""
    captured = capture_rollouts(monkeypatch)
    gradients = {}
    for kl_coef in (0.0, 0.3):
        stepper = Stepper(make(kl_in="loss", kl_estimator="k2", kl_coef=kl_coef, minibatches=1))
        stepper.step(0)
        gradients[kl_coef] = stepper.gradients[0]
    without = dataclasses.replace(SETTINGS, kl_coef=0.0)
    assert torch.allclose(
        captured[0].returns_S, torch.tensor(by_definition(captured[0], post_eos=False, settings=without)[1]), atol=1e-5
    )
    method = make(minibatches=1)
    parameters = method._roles.trainable
    count = sum(len(b.batch.targets_N) for b in captured) / 2
    for b in captured[: len(captured) // 2]:
        scores, _ = method._roles.scores(b.batch, method._roles.trained)
        (0.3 * 0.5 * (scores.log_probs_N - b.reference_N).square().sum() / count).backward()
    for name, p in parameters.items():
        assert p.grad is not None
        assert torch.allclose(gradients[0.3][name] - gradients[0.0][name], p.grad, rtol=1e-3, atol=1e-6)


def test_draws_differ_from_step_to_step_and_repeat_on_a_resume() -> None:
    assert rollout_seeds(1, 4, 3) == rollout_seeds(1, 4, 3)
    assert not set(rollout_seeds(1, 4, 3)) & set(rollout_seeds(1, 5, 3))
    assert len(set(rollout_seeds(1, 4, 3))) == 3
