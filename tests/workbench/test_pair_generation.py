"""Answers of models become pairs with all that shaped them on record; equal answers are ties, not pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import pairing
from workbench.canonical_rows import PromptRow, text_of, user
from workbench.cli import main
from workbench.comparison import report
from workbench.errors import NameTaken, UsageError, WorkbenchError
from workbench.evaluation import EvaluationJob, Measured
from workbench.generated_dataset import add_answers
from workbench.generation import Answer, Sampling
from workbench.model_names import ResolvedModel
from workbench.pair_generation import Answered, pairs_from_models, require_free_name, require_two_answers
from workbench.workspace import Workspace

PROMPTS: list[PromptRow] = [
    {"id": f"d:{n}", "prompt": [user(f"q{n}")], "tags": {"combination": f"c{n % 2}"}} for n in range(4)
]


def answers(texts: list[str], *, stopped: bool = True) -> list[Answer]:
    return [Answer(f"d:{n}", 0, text, stopped, 3, -1.0) for n, text in enumerate(texts)]


def model(name: str) -> ResolvedModel:
    return ResolvedModel(name, Path("/nowhere"), sha256="ab")


def two_models(first: list[str], second: list[str]) -> Answered:
    found = [answers(first), answers(second, stopped=False)]
    return Answered(PROMPTS, [model("one"), model("two")], found, Sampling(), {"dataset": "d", "sha256": "x"})


class TestPairs:
    def test_two_models_stand_side_by_side(self, workspace: Workspace) -> None:
        made = pairs_from_models(workspace, "p", two_models(["a", "b", "c", "same"], ["x", "y", "z", "same"]))
        pairs = list(made.pairs())
        assert len(pairs) == 3
        assert {pair.source_a for pair in pairs} <= {"one", "two"}
        assert all({pair.source_a, pair.source_b} == {"one", "two"} for pair in pairs)
        for pair in pairs:
            cut_off = "stopped_a" if pair.source_a == "two" else "stopped_b"
            assert pair.tags[cut_off] is False
        assert made.info.source["identical"] == {"combination c1": 1}
        assert made.info.source["sampling"] == {
            "samples": 1, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 256, "seed": 1,
        }  # fmt: skip

    def test_one_model_is_paired_with_itself(self, workspace: Workspace) -> None:
        texts = [Answer(f"d:{n}", sample, f"{n} {sample}", True, 3, -1.0) for n in range(4) for sample in range(5)]
        asked = Answered(PROMPTS, [model("one")], [texts], Sampling(samples=5), {"dataset": "d"})
        assert len(list(pairs_from_models(workspace, "p", asked).pairs())) == 8  # the fifth answer has no partner

    def test_all_with_all_takes_each_two_different_answers_once(self, workspace: Workspace) -> None:
        said = [["a", "b", " a "], ["c", "c", "d"], ["e", "e", "e"], ["f", "g", "h"]]
        texts = [Answer(f"d:{n}", j, text, True, 3, -1.0) for n, of in enumerate(said) for j, text in enumerate(of)]
        asked = Answered(PROMPTS, [model("one")], [texts], Sampling(samples=3), {"dataset": "d"})
        made = pairs_from_models(workspace, "p", asked, pairing="all")
        found = {frozenset(text_of(one).strip() for one in (pair.a, pair.b)) for pair in made.pairs()}
        assert found == {frozenset(two) for two in ("ab", "cd", "fg", "fh", "gh")}
        assert (made.info.rows, made.info.source["pairing"]) == (5, "all")

    def test_the_best_stands_with_the_worst_of_all_models(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "reward_head.safetensors").write_bytes(b"")
        judging = ResolvedModel("run:judge@4", tmp_path, sha256="cd")

        def longest(jobs: list[EvaluationJob], *, quiet: bool) -> list[Measured]:
            [job] = jobs
            assert job.kind == "score"
            rows = {str(row["id"]): {"reward": float(len(text_of(row["completion"])))} for row in job.rows}
            return [Measured({key: row for key, row in rows.items() if row["reward"] < 9}, {"too long": 1})]

        monkeypatch.setattr(pairing, "evaluate", longest)
        answered = two_models(["aaa", "bb", "same", "too long for it"], ["a", "bbbb", "same", "short"])
        made = pairs_from_models(workspace, "p", answered, pairing="best-worst", reward_model=judging)
        found = {frozenset(map(text_of, (pair.a, pair.b))) for pair in made.pairs()}
        assert found == {frozenset({"aaa", "a"}), frozenset({"bb", "bbbb"})}, "equal, or not measured: no pair"
        assert made.info.source["reward_model"] == {"source": "run:judge@4", "sha256": "cd"}
        with pytest.raises(UsageError, match="need a reward model"):
            pairs_from_models(workspace, "q", answered, pairing="best-worst")
        with pytest.raises(UsageError, match="no reward model"):
            pairs_from_models(workspace, "q", answered, pairing="best-worst", reward_model=model("one"))

    @pytest.mark.parametrize(
        ("models", "sampling", "said"),
        [
            (["one"], Sampling(), "--samples 2"),
            (["one"], Sampling(samples=2, temperature=0), "temperature 0"),
            (["one", "one"], Sampling(), "two different"),
        ],
    )
    def test_what_makes_no_pairs_is_refused(self, models: list[str], sampling: Sampling, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            require_two_answers([model(name) for name in models], sampling)

    def test_an_occupied_name_is_refused_before_anything_is_sampled(self, workspace: Workspace) -> None:
        pairs_from_models(workspace, "p", two_models(["a"] * 4, ["x"] * 4))
        with pytest.raises(NameTaken):
            require_free_name(workspace, "p", "pairs")
        with pytest.raises(UsageError):
            require_free_name(workspace, "../p", "pairs")


class TestArena:
    def test_the_report_counts_identical_answers_as_ties(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arena = pairs_from_models(
            workspace, "ar", two_models(["a", "b", "c", "same"], ["x", "y", "z", "same"]), kind="arena"
        )
        assert report(arena)["win_rate"]["rate"] is None
        with arena.journal("eva") as journal:
            for pair in arena.pairs():
                journal.append(pair.id, "a" if pair.source_a == "one" else "b", origin="typed")
        found = report(arena)
        assert found["models"] == ["one", "two"]
        assert (found["judged"], found["pairs"], found["identical"]) == (3, 3, 1)
        assert found["win_rate"]["rate"] == pytest.approx(3.5 / 4)
        assert found["win_rate"]["method"] == "bootstrap over clusters"
        assert main(["--workspace", str(workspace.root), "arena", "report", "ar"]) == 0
        out = capsys.readouterr().out
        assert "0.875 for the first" in out
        assert "3 wins, 0 losses, 1 tie (a tie counts half)" in out

    def test_several_annotators_are_named_and_rate_and_counts_agree(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arena = pairs_from_models(workspace, "ar", two_models(list("abcd"), list("wxyz")), kind="arena")
        pairs = list(arena.pairs())
        with arena.journal("me") as journal:
            for pair in pairs[:2]:
                journal.append(pair.id, "a" if pair.source_a == "one" else "b", origin="typed")
        with arena.journal("rule") as journal:
            for pair in pairs:
                journal.append(pair.id, "tie", origin="rule")
        rate = report(arena)["win_rate"]
        assert rate["rate"] == (0.75 + 0.75 + 0.5 + 0.5) / 4
        assert (rate["wins"], rate["losses"], rate["ties"]) == (2, 0, 2)
        assert main(["--workspace", str(workspace.root), "arena", "report", "ar"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "me (2), rule (4); some by the sample rule (synthetic); 2 pairs with several verdicts: the mean" in out
        assert "2 wins, 0 losses, 2 ties, by each pair's mean" in out
        assert "counts half" not in out

    def test_a_pair_set_of_one_model_is_no_arena(self, workspace: Workspace) -> None:
        texts = [Answer(f"d:{n}", sample, f"{n} {sample}", True, 3, -1.0) for n in range(4) for sample in range(2)]
        asked = Answered(PROMPTS, [model("one")], [texts], Sampling(samples=2), {})
        with pytest.raises(WorkbenchError, match="two models"):
            report(pairs_from_models(workspace, "p", asked, kind="arena"))


def test_answers_are_kept_as_a_dataset_that_says_where_they_come_from(workspace: Workspace) -> None:
    asked = Answered(PROMPTS, [model("one")], [answers(["a", "b", "c", ""])], Sampling(), {"dataset": "d"})
    made = add_answers(workspace, "g", asked)
    assert (made.shape, made.info.rows) == ("prompt-completion", 3)
    assert sum(made.info.rejected.values()) == 1  # the empty answer
    assert "workbench generate --model one" in made.info.source.origin
    assert "temperature 1.0" in made.info.note
    row = next(made.rows())
    assert json.loads(json.dumps(row))["tags"]["model"] == "one"
