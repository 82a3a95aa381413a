"""Several rewards on the tiny model: whose column is whose, weights and scales, a judge with its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.chat import ChatTokenizer
from engine.data.examples import PromptExample
from engine.data.packing import Document, pack
from engine.errors import RewardError
from engine.methods.apart_judge import ApartJudge
from engine.methods.rewards import BaseJudge, Rewards, Term
from engine.methods.score_rules import ScoreRules
from engine.methods.value_function import ValueFunction
from engine.model.adapters import POLICY, REWARD, VALUE, RoleModel, build_roles, reward_role
from engine.model.heads import ScalarHead, ScoreScale, load_reward_head
from engine.model.loading import load_causal_lm
from engine.model.sampler import Completion
from engine.model.saving import save_weights
from engine.rewards.answers import Answer
from engine.run.config_ppo import PpoConfig
from tests.engine.conftest import write_tiny_model
from tests.engine.methods.ppo_world import load, shake

CPU = torch.device("cpu")
PROMPT = [{"role": "user", "content": "What is the colour of the sea?"}]
TEXTS = ("The sea is blue.", "Bread", "A robin, a heron and a crow.")


def write_judge(folder: Path, into: Path, seed: int) -> ScalarHead:
    """A shaken LoRA reward model over `folder`."""
    into.mkdir()
    judge = build_roles(load(folder), kind="lora", trained=REWARD, start_adapter=None, rank=4)
    shake(judge.trainable, seed=seed)
    head = ScalarHead(32, seed=seed)
    save_weights(judge, into, base_folder=folder, reward_head=head)
    return head


@pytest.fixture
def two(tiny_model_folder: Path, tmp_path: Path) -> tuple[RoleModel, list[ScalarHead]]:
    heads = [write_judge(tiny_model_folder, tmp_path / f"judge{i}", seed=i + 4) for i in range(2)]
    roles = build_roles(
        load(tiny_model_folder), kind="lora", trained=POLICY, start_adapter=None, rank=4,
        reward_adapters=[tmp_path / "judge0", tmp_path / "judge1"], value_adapter=True,
    )  # fmt: skip
    return roles, heads


class Lengths:
    """A judge of texts: the length of the completion, and for the row "b" ten more."""

    def scores(self, answers: Sequence[Answer]) -> list[float]:
        return [len(answer.completion) + 10.0 * (answer.row["id"] == "b") for answer in answers]


class TestColumns:
    def test_each_judge_fills_its_own_whatever_their_order(self, two: Any) -> None:
        roles, heads = two
        terms = tuple(Term(name, weight, ScoreScale(0.0, 1.0)) for name, weight in (("a", 1), ("t", -2), ("b", 0.5)))
        rewards = Rewards(
            terms, (BaseJudge(reward_role(0), heads[0]), Lengths(), BaseJudge(reward_role(1), heads[1])),
            {"train": [{"id": "a"}, {"id": "b"}]}, lambda ids: "x" * len(ids),
        )  # fmt: skip
        completions = [Completion([5, 6, 7], True, [0.0] * 3), Completion([8, 9], True, [0.0] * 2)]
        prompts = [PromptExample(name, (10, 11), "") for name in "ba"]
        told_DK = rewards.of_texts("train", [1, 0], prompts, completions)
        assert told_DK.tolist() == [[0.0, 13.0, 0.0], [0.0, 2.0, 0.0]]
        batch = pack([Document.completion((10, 11), c.ids) for c in completions], CPU)
        raw_DK, first_TH = rewards.of_batch(roles, batch, told_DK[[0, 1]])
        assert raw_DK[:, 1].tolist() == [13.0, 2.0]
        for column, role, head in ((0, REWARD, heads[0]), (2, "reward_2", heads[1])):
            assert torch.equal(raw_DK[:, column], head(roles.hidden(batch, role)[batch.last_rows_D]).detach())
        assert not torch.allclose(raw_DK[:, 0], raw_DK[:, 2])
        assert first_TH is not None
        assert torch.equal(first_TH, roles.hidden(batch, REWARD))
        assert rewards.weighted(raw_DK).tolist() == pytest.approx(
            (raw_DK[:, 0] - 2 * raw_DK[:, 1] + 0.5 * raw_DK[:, 2]).tolist()
        )
        found = rewards.metrics(raw_DK)
        assert found["rewards/t/mean"] == (torch.tensor(15.0), 2.0)
        assert float(found["rewards/t/std"][0]) == pytest.approx(11 / 2**0.5)
        assert rewards.in_words(raw_DK[0])["t"] == 13.0

    def test_a_lone_reward_model_has_no_figures_beside_its_own(self, two: Any) -> None:
        rewards = Rewards.of_model(two[1][0], ScoreScale(0.0, 1.0))
        assert (rewards.metrics(torch.ones(2, 1)), rewards.in_words(torch.ones(1))) == ({}, {})


class TestScale:
    raw = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 20.0]])
    terms = (Term("model", 1.0, ScoreScale(2.0, 4.0)), Term("function", -0.1, ScoreScale(0.0, 1.0)))

    def rules(self, scale: str) -> ScoreRules:
        return ScoreRules(PpoConfig(score_scale=scale, missing_eos_penalty=2.0), self.terms)

    def test_a_reward_model_is_in_its_deviations_and_a_function_in_its_own_unit(self) -> None:
        found = self.rules("reward_model").scores(self.raw, (True, True, False)).tolist()
        assert found == pytest.approx([-0.25 - 1.0, 0.25 - 3.0, 0.75 - 2.0 - 2.0])

    def test_running_puts_each_reward_in_deviations_of_its_own(self) -> None:
        rules = self.rules("running")
        rules.observe(self.raw[:2])
        rules.observe(self.raw[2:])
        own = (self.raw - self.raw.mean(0)) / self.raw.std(0, unbiased=False)
        expected = own[:, 0] - 0.1 * own[:, 1]
        assert torch.allclose(rules.scores(self.raw, (True,) * 3), expected, atol=1e-6)

    def test_moments_that_were_saved_without_a_dimension_are_read(self) -> None:
        rules = ScoreRules(PpoConfig(score_scale="running"), self.terms[:1])
        saved = {name: torch.tensor(value, dtype=torch.float64) for name, value in
                 (("count", 4.0), ("mean", 2.0), ("squares", 16.0))}  # fmt: skip
        rules.load_state_dict(saved)
        assert rules.scores(self.raw[:, :1], (True,) * 3).tolist() == pytest.approx([-0.5, 0.5, 1.5])


class TestValue:
    def test_it_begins_as_the_first_reward_model_with_its_weight(self, two: Any) -> None:
        roles, heads = two
        terms = (Term("a", 0.5, ScoreScale(1.0, 2.0)), Term("b", 1.0, ScoreScale(0.0, 1.0)))
        rewards = Rewards(terms, tuple(BaseJudge(reward_role(i), head) for i, head in enumerate(heads)))
        value = ValueFunction(roles, rewards)
        batch = pack([Document.completion((10, 11), (5, 6, 7))], CPU)
        raw_DK, _ = rewards.of_batch(roles, batch, torch.zeros(1, 2))
        found = value(roles.hidden(batch, VALUE)[batch.last_rows_D])
        assert found.item() == pytest.approx(0.5 * (float(raw_DK[0, 0]) - 1.0) / 2.0, abs=1e-5)

    @pytest.mark.parametrize("start", [False, True])
    def test_without_one_it_begins_at_0_as_the_run_does(
        self, tiny_model_folder: Path, tmp_path: Path, start: bool
    ) -> None:
        begun = tmp_path / "start"
        write_judge(tiny_model_folder, begun, seed=1)
        roles = build_roles(
            load(tiny_model_folder), kind="lora", trained=POLICY, start_adapter=begun if start else None, rank=4,
            value_adapter=True,
        )  # fmt: skip
        value = ValueFunction(roles, Rewards((Term("t", 1.0, ScoreScale(0.0, 1.0)),), (Lengths(),)))
        batch = pack([Document.completion((10, 11), (5, 6, 7))], CPU)
        hidden_TH = roles.hidden(batch, VALUE)
        assert value.has_adapter
        assert torch.allclose(hidden_TH, roles.hidden(batch, POLICY), atol=1e-6)
        assert value(hidden_TH).tolist() == [0.0] * 5
        assert all(p.requires_grad for p in value.parameters())


class TestApart:
    """A reward model that reads texts agrees with itself as a role, and reads another vocabulary by its own rules."""

    def judge(self, folder: Path, adapter: Path, window: int = 0) -> tuple[ApartJudge, RoleModel, ScalarHead]:
        roles = build_roles(
            load_causal_lm(folder, dtype=torch.float32, device="cpu"),
            kind="lora",
            trained=REWARD,
            start_adapter=adapter,
        )
        head, _ = load_reward_head(adapter)
        judge = ApartJudge(
            "reward far", roles, head, ChatTokenizer.of_model(folder, adapter), same_tokens=False, window=window,
            tokens_at_once=60, device=CPU, check=lambda: None,
        )  # fmt: skip
        return judge, roles, head

    @pytest.mark.parametrize("vocabulary", [300, 280])
    def test_it_reads_what_its_own_tokenizer_makes_of_an_answer(self, tmp_path: Path, vocabulary: int) -> None:
        folder = write_tiny_model(tmp_path / "far", seed=9, vocab_size=vocabulary)
        write_judge(folder, tmp_path / "judge", seed=3)
        judge, roles, head = self.judge(folder, tmp_path / "judge")
        tokenizer = ChatTokenizer.from_folder(folder)
        answers = [Answer({"id": str(i), "prompt": PROMPT}, text, i != 1) for i, text in enumerate(TEXTS)]
        found = judge.scores(answers)
        for answer, score in zip(answers, found, strict=True):
            ids = tokenizer.prompt_ids(PROMPT)
            ids += [*tokenizer.encode(answer.completion), *([tokenizer.end_of_turn_id] if answer.stopped else [])]
            batch = pack([Document(ids, [False] * len(ids))], CPU)
            expected = head(roles.hidden(batch, REWARD)[batch.last_rows_D])
            assert score == pytest.approx(expected.item(), abs=1e-4)
        assert len(set(found)) == 3

    def test_plain_prompts_stay_plain(self, tiny_model_folder: Path, tmp_path: Path) -> None:
        write_judge(tiny_model_folder, tmp_path / "judge", seed=3)
        judge, roles, head = self.judge(tiny_model_folder, tmp_path / "judge")
        tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
        ids = [*tokenizer.prompt_ids("The sea is"), *tokenizer.completion_ids("The sea is", " blue.")]
        batch = pack([Document(ids, [False] * len(ids))], CPU)
        (score,) = judge.scores([Answer({"id": "1", "prompt": "The sea is"}, " blue.", True)])
        assert score == pytest.approx(head(roles.hidden(batch, REWARD)[batch.last_rows_D]).item(), abs=1e-5)

    def test_what_it_cannot_read_is_told_by_row(self, tmp_path: Path) -> None:
        folder = write_tiny_model(tmp_path / "mute", chat_template=None)
        write_judge(folder, tmp_path / "judge", seed=3)
        judge, _, _ = self.judge(folder, tmp_path / "judge", window=20)
        with pytest.raises(RewardError, match="reward far cannot read row q7: .*chat template"):
            judge.require_prompts([{"id": "q7", "prompt": PROMPT}])
        judge.require_prompts([{"id": "q8", "prompt": "The sea"}])
        with pytest.raises(RewardError, match="reward far reads 20 tokens, and row q9 with its answer has"):
            judge.scores([Answer({"id": "q9", "prompt": "The sea is blue. " * 9}, "yes", True)])
