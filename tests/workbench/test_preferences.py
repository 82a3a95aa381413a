"""A preference set is frozen by an explicit rule, split by prompt, and never edited."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.canonical_rows import is_held_out
from workbench.cli import main
from workbench.dataset_store import add_dataset
from workbench.errors import DiskFull, NameTaken, NotFound, SourceChanged, UsageError, WorkbenchError
from workbench.judgments import Showing
from workbench.pair_sets import CandidatePair, PairSet, create_pairs, pairs_from_dataset
from workbench.preference_export import export, export_rows
from workbench.preference_rule import FreezeRule, VerdictsOfPair, decide
from workbench.preferences import freeze, list_preference_sets, open_preference_set
from workbench.workspace import Workspace, init

VOTE_CASES: list[tuple[str, dict[str, Any], str, str]] = [
    # votes ("-" is a skip), rule, preferred answers, cause
    ("a", {}, "a", ""),
    ("", {}, "", "unjudged"),
    ("-", {}, "", "skipped"),
    ("a-", {}, "a", ""),
    ("t", {}, "", "ties"),
    ("0", {}, "", "both_bad"),
    ("aab", {}, "a", ""),
    ("ab", {}, "", "undecided"),
    ("at", {}, "", "undecided"),
    ("att", {}, "", "ties"),
    ("at", {"ties": "abstain"}, "a", ""),
    ("btt", {"ties": "abstain"}, "b", ""),
    ("tt", {"ties": "abstain"}, "", "ties"),
    ("00", {"ties": "abstain"}, "", "both_bad"),
    ("aab", {"overlap": "all"}, "", "undecided"),
    ("aat", {"overlap": "all"}, "", "undecided"),
    ("aat", {"overlap": "all", "ties": "abstain"}, "a", ""),
    ("bb", {"overlap": "all"}, "b", ""),
    ("aab", {"min_agreement": 0.7}, "", "undecided"),
    ("aaab", {"min_agreement": 0.7}, "a", ""),
    ("aab", {"overlap": "each"}, "ab", ""),
    ("at", {"overlap": "each"}, "a", ""),
    ("t0", {"overlap": "each"}, "", "ties"),
]
LETTERS = {"a": "a", "b": "b", "t": "tie", "0": "both_bad", "-": "skip"}


@pytest.mark.parametrize(("votes", "rule", "preferred", "cause"), VOTE_CASES)
def test_the_rule(votes: str, rule: dict[str, Any], preferred: str, cause: str) -> None:
    said = VerdictsOfPair(skips=votes.count("-"))
    said.votes.update(LETTERS[letter] for letter in votes if letter != "-")
    outcome = decide(said, FreezeRule(**rule))
    assert ("".join(winner for winner, _ in outcome.rows), outcome.cause) == (preferred, cause)


def test_each_side_is_weighted_by_its_share() -> None:
    said = VerdictsOfPair()
    said.votes.update(["a", "a", "a", "b", "tie"])
    assert decide(said, FreezeRule(overlap="each")).rows == (("a", 0.75), ("b", 0.25))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ties": "keep"}, "drop .* or abstain"),
        ({"overlap": "some"}, "majority, all or each"),
        ({"min_agreement": 1.5}, "from 0 to 1"),
        ({"overlap": "each", "min_agreement": 0.5}, "goes with"),
        ({"eval_share": 1.0}, "below 1"),
        ({"eval_share": -0.1}, "at least 0"),
    ],
)
def test_a_rule_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FreezeRule(**wrong)


def make_pairs(workspace: Workspace, name: str = "p", prompts: int = 40, each: int = 2) -> PairSet:
    rows = [
        CandidatePair(f"q{n}", f"first {n} {k}", f"second {n} {k}", tags={"n": n})
        for n in range(prompts)
        for k in range(each)
    ]
    return create_pairs(workspace, name, rows, {"made": "here"})


def judge(pairs: PairSet, annotator: str, verdicts: Sequence[str], origin: Any = "typed") -> None:
    with pairs.journal(annotator) as journal:
        journal.append_many(
            journal.prepare(pair.id, verdict, origin=origin)  # type: ignore[arg-type]
            for pair, verdict in zip(pairs.pairs(), verdicts, strict=False)
        )


class TestFreezing:
    def test_rows_follow_the_verdicts_and_every_pair_is_accounted_for(self, workspace: Workspace) -> None:
        pairs = make_pairs(workspace, prompts=30)
        judge(pairs, "alice", ["a", "b", "tie", "both_bad", "skip"] * 11)
        frozen = freeze(workspace, "p", "f", FreezeRule(seed=4))
        counts = frozen.info.counts
        assert {cause: counts[cause] for cause in ("ties", "both_bad", "skipped", "unjudged", "undecided")} == {
            "ties": 11, "both_bad": 11, "skipped": 11, "unjudged": 5, "undecided": 0,
        }  # fmt: skip
        assert counts["train"] + counts["eval"] == 22
        verdict_of = {showing.pair: judgment.verdict for showing, judgment in pairs.judgments().current.items()}
        pair_of = {pair.id: pair for pair in pairs.pairs()}
        rows = [*frozen.rows("train"), *frozen.rows("eval")]
        for row in rows:
            pair = pair_of[row["id"].removeprefix("p:")]
            a_won = verdict_of[pair.id] == "a"
            assert (row["chosen"], row["rejected"]) == ((pair.a, pair.b) if a_won else (pair.b, pair.a))
            assert (row["weight"], row["margin"], row["group"], row["tags"]) == (1.0, None, pair.group, pair.tags)
        assert open_preference_set(workspace, "f") == frozen
        assert frozen.info.rule == FreezeRule(seed=4)
        assert frozen.info.origins == {"typed": 22}

    def test_the_split_is_by_prompt_and_a_prompt_keeps_its_side(self, workspace: Workspace) -> None:
        judge(make_pairs(workspace, "small", prompts=60), "alice", ["a"] * 120)
        judge(make_pairs(workspace, "large", prompts=120), "alice", ["b"] * 240)
        rule = FreezeRule(eval_share=0.25, seed=3)
        sides = []
        for name in ("small", "large"):
            frozen = freeze(workspace, name, f"f-{name}", rule)
            train, held = ({row["group"] for row in frozen.rows(side)} for side in ("train", "eval"))  # type: ignore[arg-type]
            assert not train & held
            assert all(is_held_out(group, 3, 0.25) for group in held)
            sides.append(held)
        assert sides[0] <= sides[1]
        assert 15 < len(sides[1]) < 45

    @pytest.mark.parametrize("seed", range(6))
    def test_neither_side_is_empty_where_two_prompts_are_there(self, workspace: Workspace, seed: int) -> None:
        judge(make_pairs(workspace, prompts=2), "alice", ["a"] * 4)
        counts = freeze(workspace, "p", "f", FreezeRule(seed=seed, eval_share=0.5)).info.counts
        assert (counts["train"], counts["eval"]) == (2, 2)

    def test_without_a_share_nothing_is_held_out(self, workspace: Workspace) -> None:
        judge(make_pairs(workspace, prompts=5), "alice", ["a"] * 10)
        assert freeze(workspace, "p", "f", FreezeRule(eval_share=0)).info.counts["eval"] == 0

    def test_the_same_sources_and_rule_give_the_same_bytes(self, workspace: Workspace) -> None:
        pairs = make_pairs(workspace)
        judge(pairs, "alice", ["a", "b"] * 40)
        first = freeze(workspace, "p", "f1")
        assert freeze(workspace, "p", "f2").info.content_sha256 == first.info.content_sha256
        judge(pairs, "alice", ["b"])
        assert freeze(workspace, "p", "f3").info.content_sha256 != first.info.content_sha256
        first.verify()

    def test_sources_are_named_with_the_hash_of_what_was_read(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import hashlib

        pairs = make_pairs(workspace)
        judge(pairs, "alice", ["a"] * 80)
        (journal,) = pairs.judgments_folder.iterdir()
        read = journal.read_bytes() + b"torn"
        journal.write_bytes(read)
        frozen = freeze(workspace, "p", "f")
        (source,) = frozen.info.sources
        assert source["sha256"] == pairs.info.sha256
        assert source["journals"] == [{"file": journal.name, "sha256": hashlib.sha256(read).hexdigest(), "lines": 80}]
        assert source["faults"] == [f"{journal.name}:81: torn (the line ends early)"]
        assert main(["prefs", "freeze", "p", "--to", "g", "--workspace", str(workspace.root)]) == 0
        told = capsys.readouterr().err
        assert f"lines of journals that could not be used: {journal.name}:81: torn" in told

    def test_several_sets_several_people_and_whose_verdicts_count(self, workspace: Workspace) -> None:
        first, second = make_pairs(workspace, "p1", 10, 1), make_pairs(workspace, "p2", 10, 1)
        judge(first, "alice", ["a"] * 10)
        judge(first, "rule", ["b"] * 10, origin="rule")
        judge(second, "rule", ["b"] * 10, origin="rule")
        both = freeze(workspace, ["p1", "p2"], "both")
        assert (both.info.counts["undecided"], both.info.counts["train"] + both.info.counts["eval"]) == (10, 10)
        assert both.info.origins == {"rule": 10}
        people = freeze(workspace, "p1", "people", FreezeRule(annotators=("alice",)))
        assert people.info.origins == {"typed": 10}
        assert people.info.rule.annotators == ("alice",)
        with pytest.raises(UsageError, match="once"):
            freeze(workspace, ["p1", "p1"], "twice")
        with pytest.raises(UsageError, match=r"--annotators alise: no such name judged p1.* of alice, rule\."):
            freeze(workspace, "p1", "nobody", FreezeRule(annotators=("alice", "alise")))
        assert "nobody" not in workspace.names("prefs")

    def test_conflicts_cast_no_vote_and_repeats_are_never_merged(self, workspace: Workspace) -> None:
        pairs = make_pairs(workspace, prompts=4, each=1)
        ids = [pair.id for pair in pairs.pairs()]
        with pairs.journal("alice") as one, pairs.journal("alice") as other:
            one.append(ids[0], "a", origin="typed")
            other.append(ids[0], "b", origin="typed")
            one.append(ids[1], "a", origin="typed")
            one.append(ids[1], "b", origin="typed", repeat=1)
            one.append(ids[2], "b", origin="typed", criterion="honest")
        counts = freeze(workspace, "p", "f").info.counts
        assert (counts["conflicts"], counts["undecided"], counts["unjudged"]) == (1, 1, 2)
        assert counts["train"] + counts["eval"] == 1

    def test_undone_verdicts_are_not_frozen(self, workspace: Workspace) -> None:
        pairs = make_pairs(workspace, prompts=3, each=1)
        judge(pairs, "alice", ["a"] * 3)
        with pairs.journal("alice") as journal:
            journal.undo(Showing(next(pairs.pairs()).id, "alice"))
        assert freeze(workspace, "p", "f").info.counts["unjudged"] == 1

    def test_annotators_who_disagree_everywhere_are_named(self, workspace: Workspace) -> None:
        pairs = make_pairs(workspace, prompts=3, each=1)
        judge(pairs, "alice", ["a"] * 3)
        judge(pairs, "rule", ["tie"] * 3)
        with pytest.raises(UsageError, match=r"3 undecided.*\(alice, rule\); --annotators WHO"):
            freeze(workspace, "p", "f")
        assert freeze(workspace, "p", "f", FreezeRule(annotators=("alice",))).info.counts["undecided"] == 0

    def test_nothing_to_freeze_says_what_became_of_the_pairs(self, workspace: Workspace) -> None:
        judge(make_pairs(workspace, prompts=3, each=1), "alice", ["tie", "skip"])
        with pytest.raises(UsageError, match=r"nothing to freeze from p: 1 tie, 1 skipped, 1 unjudged"):
            freeze(workspace, "p", "f")
        assert list(workspace.prefs.iterdir()) == []
        with pytest.raises(NotFound):
            freeze(workspace, "nowhere", "f")


class TestFrozen:
    @pytest.fixture
    def frozen(self, workspace: Workspace) -> Any:
        judge(make_pairs(workspace), "alice", ["a", "b"] * 40)
        return freeze(workspace, "p", "f")

    def test_an_edit_is_refused(self, frozen: Any) -> None:
        path = frozen.folder / "train.jsonl"
        path.write_bytes(path.read_bytes().replace(b"first", b"FIRST", 1))
        with pytest.raises(SourceChanged, match="edited after it was frozen"):
            list(frozen.rows("train"))
        list(frozen.rows("eval"))
        with pytest.raises(SourceChanged):
            frozen.verify()

    def test_its_name_is_taken_for_datasets_too(self, workspace: Workspace, frozen: Any, tmp_path: Path) -> None:
        with pytest.raises(NameTaken):
            freeze(workspace, "p", "f")
        (tmp_path / "f.jsonl").write_bytes(b'{"text":"x"}\n')
        with pytest.raises(NameTaken, match="share their names"):
            add_dataset(workspace, tmp_path / "f.jsonl")

    def test_newer_and_damaged_sets_are_told(self, workspace: Workspace, frozen: Any) -> None:
        where = frozen.folder / "prefs.toml"
        where.write_text("schema = 5\n")
        with pytest.raises(WorkbenchError, match="version 5"):
            open_preference_set(workspace, "f")
        where.write_text("schema = 1\n")
        found, problems = list_preference_sets(workspace)
        assert (found, len(problems)) == ([], 1)


class TestExport:
    @pytest.mark.parametrize("turns", [True, False])
    def test_both_formats_hold_the_same_rows(self, workspace: Workspace, tmp_path: Path, turns: bool) -> None:
        def answer(text: str) -> Any:
            return [{"role": "assistant", "content": text}] if turns else text

        def prompt(n: int) -> Any:
            return [{"role": "user", "content": f"q{n} é\n"}] if turns else f"q{n} é\n"

        rows = [CandidatePair(prompt(n), answer(f"x{n}"), answer("y'\"\0")) for n in range(9)]
        judge(create_pairs(workspace, "p", rows, {}), "alice", ["a"] * 9)
        frozen = freeze(workspace, "p", "f")
        expected = list(export_rows(frozen))
        assert export(frozen, tmp_path / "out.jsonl") == export(frozen, tmp_path / "out.parquet") == 9
        assert [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()] == expected
        read = duckdb.execute("SELECT prompt, chosen, rejected FROM read_parquet(?)", [str(tmp_path / "out.parquet")])
        assert [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in read.fetchall()] == expected
        assert export(frozen, tmp_path / "train.jsonl", "train") == frozen.info.counts["train"]
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.jsonl", "out.parquet", "train.jsonl", "ws"]

    def test_what_is_refused(self, workspace: Workspace, tmp_path: Path) -> None:
        judge(make_pairs(workspace), "alice", ["a"] * 80)
        frozen = freeze(workspace, "p", "f")
        (tmp_path / "there.jsonl").write_text("mine")
        with pytest.raises(NameTaken):
            export(frozen, tmp_path / "there.jsonl")
        assert (tmp_path / "there.jsonl").read_text() == "mine"
        with pytest.raises(UsageError, match="ending"):
            export(frozen, tmp_path / "out.xlsx")
        with pytest.raises(NotFound):
            export(frozen, tmp_path / "no" / "out.jsonl")

    def test_a_full_disk_leaves_no_part(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import errno

        judge(make_pairs(workspace), "alice", ["a"] * 80)
        frozen = freeze(workspace, "p", "f")

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull, match="MB free"):
            export(frozen, tmp_path / "out.jsonl")
        monkeypatch.undo()
        assert [entry.name for entry in tmp_path.iterdir()] == ["ws"]


TEXTS = st.text(min_size=1, max_size=40).filter(lambda text: bool(text.strip()))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=6), st.text(max_size=20), st.booleans())
def test_any_unicode_survives_the_whole_way(rows: list[tuple[str, str, str]], column: str, plain: bool) -> None:
    """add → read → pairs → imported verdicts → freeze → export, byte for byte."""
    wanted = [(p, c, r) for p, c, r in rows if c.strip() != r.strip()]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as scratch:
        workspace = init(Path(scratch) / "ws")
        names = {"prompt", "chosen", "rejected", "system", "input", "history", "margin"}
        odd = f"_{column}"  # an extra column of any name
        assert odd not in names
        data = [{"prompt": p, "chosen": c, "rejected": r, odd: p} for p, c, r in rows]
        (Path(scratch) / "d.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in data))
        mapping = {"as": "plain" if plain else "chat", "prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
        dataset = add_dataset(workspace, Path(scratch) / "d.jsonl", mapping=mapping)
        if dataset.info.recognition.form != "explicit":
            return  # hypothesis made answers that begin with the prompt
        pairs_from_dataset(workspace, "p", dataset)
        frozen = freeze(workspace, "p", "f")
        export(frozen, Path(scratch) / "out.parquet")
        read = duckdb.execute("SELECT * FROM read_parquet(?)", [f"{scratch}/out.parquet"]).fetchall()
    found = [tuple(value if plain else value[0]["content"] for value in row) for row in read]
    assert sorted(found) == sorted(wanted)
