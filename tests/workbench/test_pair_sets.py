"""A pair set is written once; which answer is a is drawn; verdicts that came along are judgments."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from workbench.dataset_store import add_dataset
from workbench.errors import NameTaken, SourceChanged, UnreadableData, UsageError, WorkbenchError
from workbench.judgments import Showing
from workbench.label_form import form_of
from workbench.pair_sets import (
    CandidatePair,
    Imported,
    create_pairs,
    list_pairs,
    open_pairs,
    pairs_from_dataset,
)
from workbench.pair_words import judge
from workbench.rule_annotator import judge_by_rule, verdict_of
from workbench.workspace import Workspace


def candidates(count: int, imported: Imported = "") -> Iterable[CandidatePair]:
    for n in range(count):
        yield CandidatePair(
            f"q{n}", f"first {n}", f"second {n}", "m1", "m2", imported, {"n": n, "stopped_a": n % 2 == 0}
        )


def add(workspace: Workspace, folder: Path, rows: list[dict[str, object]], name: str = "d") -> object:
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return add_dataset(workspace, path)


class TestMaking:
    def test_what_goes_in_comes_out(self, workspace: Workspace) -> None:
        prompt = [{"role": "user", "content": "q\0\u2028\x1b[2J"}]
        row = CandidatePair(prompt, [{"role": "assistant", "content": "é"}], [{"role": "assistant", "content": "😀"}])  # type: ignore[list-item,arg-type]
        made = create_pairs(workspace, "p", [row], {"models": ["m1"], "seed": 3})
        (pair,) = made.pairs()
        assert pair.prompt == prompt
        assert {pair.a[0]["content"], pair.b[0]["content"]} == {"é", "😀"}  # type: ignore[index]
        assert len(pair.id) == len(pair.group) == 16
        assert open_pairs(workspace, "p") == made
        assert made.info.source == {"models": ["m1"], "seed": 3}
        assert stat.S_IMODE(made.parquet_path.stat().st_mode) == 0o600
        assert sorted(entry.name for entry in made.folder.iterdir()) == ["judgments", "pairs.parquet", "pairs.toml"]

    def test_the_draw_is_fair_repeatable_and_blind_to_the_order_of_the_answers(self, workspace: Workspace) -> None:
        made = create_pairs(workspace, "p", candidates(400), {})
        again = create_pairs(workspace, "again", candidates(400), {})
        turned = [CandidatePair(c.prompt, c.b, c.a, c.source_b, c.source_a) for c in candidates(400)]
        other = create_pairs(workspace, "turned", turned, {})
        pairs = list(made.pairs())
        assert pairs == list(again.pairs())
        assert [(p.id, p.a, p.source_a) for p in pairs] == [(p.id, p.a, p.source_a) for p in other.pairs()]
        assert 150 < sum(pair.source_a == "m1" for pair in pairs) < 250
        assert [p.a for p in create_pairs(workspace, "s1", candidates(400), {}, seed=1).pairs()] != [p.a for p in pairs]
        for pair in pairs:
            assert (pair.source_a == "m1") == str(pair.a).startswith("first")
            assert ("stopped_a" in pair.tags) == (pair.source_a == "m1")

    def test_equal_answers_are_left_out_and_doubled_pairs_keep_different_ids(self, workspace: Workspace) -> None:
        rows = [CandidatePair("q", "x", " x\n"), CandidatePair("q", "x", "y"), CandidatePair("q", "y", "x")]
        made = create_pairs(workspace, "p", rows, {})
        assert (made.info.rows, made.info.identical_left_out) == (2, 1)
        assert len({pair.id for pair in made.pairs()}) == 2
        with pytest.raises(UnreadableData, match="all answers are equal"):
            create_pairs(workspace, "none", rows[:1], {})
        assert workspace.names("pairs") == ["p"]

    def test_a_failing_source_of_rows_leaves_nothing(self, workspace: Workspace) -> None:
        def failing() -> Iterable[CandidatePair]:
            yield from candidates(3)
            raise UnreadableData("gone")

        with pytest.raises(UnreadableData, match="gone"):
            create_pairs(workspace, "p", failing(), {})
        assert list(workspace.pairs.iterdir()) == []

    def test_an_occupied_name(self, workspace: Workspace) -> None:
        create_pairs(workspace, "p", candidates(1), {})
        with pytest.raises(NameTaken):
            create_pairs(workspace, "p", candidates(2), {})
        create_pairs(workspace, "p", candidates(1), {}, kind="arena")
        assert open_pairs(workspace, "p", "arena").folder == workspace.arena / "p"

    def test_from_a_dataset_with_verdicts(self, workspace: Workspace, tmp_path: Path) -> None:
        rows: list[dict[str, object]] = [{"prompt": f"q{n}", "chosen": f"g{n}", "rejected": f"b{n}"} for n in range(40)]
        made = pairs_from_dataset(workspace, "p", add(workspace, tmp_path, rows))  # type: ignore[arg-type]
        current = made.judgments().current
        assert len(current) == 40
        for pair in made.pairs():
            judgment = current[Showing(pair.id, "imported")]
            preferred = pair.a if judgment.verdict == "a" else pair.b
            assert preferred[0]["content"].startswith("g")  # type: ignore[index,union-attr]
            assert judgment.origin == "imported"
            assert judgment.verdict == pair.imported
        assert 5 < made.status().verdicts["a"] < 35
        assert made.info.source["dataset"] == "d"

    def test_from_a_dataset_without_verdicts_and_from_one_that_does_not_fit(
        self, workspace: Workspace, tmp_path: Path
    ) -> None:
        plain = add(workspace, tmp_path, [{"prompt": "q", "a": "x", "b": "y"}], "plain")
        made = pairs_from_dataset(workspace, "p", plain)  # type: ignore[arg-type]
        assert (made.status().open, made.status().judged) == (1, 0)
        text = add(workspace, tmp_path, [{"text": "x"}], "text")
        with pytest.raises(UsageError, match="pairs are made from preference or answers"):
            pairs_from_dataset(workspace, "t", text)  # type: ignore[arg-type]


class TestReading:
    def test_a_changed_file_is_refused(self, workspace: Workspace) -> None:
        made = create_pairs(workspace, "p", candidates(1), {})
        made.parquet_path.write_bytes(made.parquet_path.read_bytes() + b"x")
        with pytest.raises(SourceChanged, match="restore it"):
            list(made.pairs())
        made.parquet_path.unlink()
        with pytest.raises(UnreadableData, match="is missing"):
            list(made.pairs())

    def test_a_pair_by_the_beginning_of_its_id(self, workspace: Workspace) -> None:
        made = create_pairs(workspace, "p", candidates(50), {})
        pair = next(iter(made.pairs()))
        assert made.pair(pair.id[:12]) == pair
        for wrong in ("", "zz"):
            with pytest.raises(UsageError, match="no pair"):
                made.pair(wrong)
        ids = sorted(pair.id for pair in made.pairs())
        first = next(c for c in "0123456789abcdef" if sum(one[0] == c for one in ids) > 1)
        with pytest.raises(UsageError, match=r"\d+ pairs") as caught:
            made.pair(first)
        assert sum(one in str(caught.value) for one in ids) == min(8, sum(one[0] == first for one in ids))

    def test_verdicts_that_came_along_answer_no_other_question(self, workspace: Workspace) -> None:
        """They say which answer is better: a set that asks other questions is all open, and says what it left out."""
        row = CandidatePair("q", "yes", "no", "x", "y", "a")
        made = create_pairs(workspace, "asks", [row], {}, note="synthetic", form=form_of(criteria=["helpful"]))
        assert (made.status().judged, made.status().open) == (0, 1)
        assert (made.info.verdicts_left_out, made.info.note) == (1, "synthetic")
        kept = create_pairs(workspace, "also", [row], {}, form=form_of(criteria=["helpful", "overall"]))
        assert kept.status().by_annotator == {"imported": 1}
        assert kept.info.verdicts_left_out == 0
        asked = argparse.Namespace(
            rule=None, pair=next(iter(made.pairs())).id, annotator="eva", verdict="a", undo=False
        )
        with pytest.raises(UsageError, match="asks asks helpful, and not which answer is better"):
            judge(made, asked)
        assert made.status().verdicts == {}

    def test_newer_and_damaged_sets_are_told(self, workspace: Workspace) -> None:
        for name in ("new", "torn", "good"):
            create_pairs(workspace, name, candidates(1), {})
        (workspace.pairs / "new" / "pairs.toml").write_text("schema = 9\n")
        (workspace.pairs / "torn" / "pairs.toml").write_text("schema = 1\n")
        found, problems = list_pairs(workspace)
        assert [one.name for one in found] == ["good"]
        assert len(problems) == 2
        with pytest.raises(WorkbenchError, match="version 9"):
            open_pairs(workspace, "new")

    def test_status_counts_showings_and_names_faults(self, workspace: Workspace) -> None:
        made = create_pairs(workspace, "p", candidates(4), {})
        ids = [pair.id for pair in made.pairs()]
        with made.journal("alice") as alice:
            alice.append(ids[0], "a", origin="typed")
            alice.append(ids[1], "skip", origin="typed")
            alice.append(ids[2], "tie", origin="typed")
            alice.undo(Showing(ids[2], "alice"))
            alice.append("unknown", "a", origin="typed")
            path = alice.path
        path.write_bytes(path.read_bytes() + b"torn")
        with made.journal("bob") as bob:
            bob.append(ids[0], "b", origin="screen")
        status = made.status()
        assert (status.pairs, status.judged, status.open, status.skipped) == (4, 1, 2, 1)
        assert status.verdicts == {"a": 1, "b": 1, "skip": 1}
        assert status.by_annotator == {"alice": 2, "bob": 1}
        assert status.by_origin == {"typed": 2, "screen": 1}
        assert (status.undone, status.unknown_pairs, status.conflicts) == (1, 1, 0)
        assert status.faults == (f"{path.name}:6: torn (the line ends early)",)

    def test_a_read_only_workspace_takes_no_verdict(self, workspace: Workspace) -> None:
        create_pairs(workspace, "p", candidates(1), {})
        from dataclasses import replace

        locked = replace(workspace, read_only_reason="a test says so")
        with pytest.raises(WorkbenchError, match="read-only"):
            open_pairs(locked, "p").journal("alice")


class TestRule:
    @staticmethod
    def score(prompt: str, answer: str, *, stopped: bool = True) -> SimpleNamespace:
        return SimpleNamespace(total=(len(answer) if stopped else 0))

    def test_it_judges_what_it_has_not_judged_and_ties_where_equal(self, workspace: Workspace) -> None:
        rows = [CandidatePair("q", "long answer", "short"), CandidatePair("r", "same!", "equal")]
        made = create_pairs(workspace, "p", rows, {})
        report = judge_by_rule(made, score=self.score)
        assert (report.judged, report.already_judged, report.verdicts["tie"]) == (2, 0, 1)
        again = judge_by_rule(made, score=self.score)
        assert (again.judged, again.already_judged) == (0, 2)
        current = made.judgments().current
        for pair in made.pairs():
            judgment = current[Showing(pair.id, "rule")]
            assert judgment.origin == "rule"
            if pair.prompt == "q":
                assert (pair.a if judgment.verdict == "a" else pair.b) == "long answer"
        assert made.status().by_origin == {"rule": 2}

    def test_it_hears_the_words_of_turns_and_whether_an_answer_was_cut_off(self, workspace: Workspace) -> None:
        heard: list[tuple[str, str, bool]] = []

        def score(prompt: str, answer: str, *, stopped: bool = True) -> SimpleNamespace:
            heard.append((prompt, answer, stopped))
            return self.score(prompt, answer, stopped=stopped)

        turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
        answers = [[{"role": "assistant", "content": text}] for text in ("cut off here", "whole")]
        row = CandidatePair(turns, *answers, tags={"stopped_a": False, "stopped_b": True})  # type: ignore[arg-type]
        (pair,) = create_pairs(workspace, "p", [row], {}).pairs()
        winner = verdict_of(pair, score)
        assert (pair.a if winner == "a" else pair.b) == answers[1]
        assert sorted(heard) == [("q", "cut off here", False), ("q", "whole", True)]
