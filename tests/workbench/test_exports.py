"""What leaves the workbench loads in the tools it is named after, and says the same there."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from workbench.battle_export import battles
from workbench.cli import main
from workbench.errors import NameTaken, UsageError
from workbench.label_form import form_of
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.preference_export import export, export_rows
from workbench.preference_formats import rows_in
from workbench.preferences import PreferenceSet, freeze
from workbench.workspace import Workspace


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.fixture
def made(workspace: Workspace) -> PairSet:
    rows = [
        CandidatePair([turn("user", f"q{n}")], [turn("assistant", "yes")], [turn("assistant", f"no {n}")], "m1", "m2")  # type: ignore[list-item]
        for n in range(12)
    ]
    return create_pairs(workspace, "s", rows, {"dataset": "d"})


@pytest.fixture
def frozen(workspace: Workspace, made: PairSet) -> PreferenceSet:
    with made.journal("alice") as journal:
        for pair in made.pairs():
            journal.append(pair.id, "a", origin="screen", order="ab")
    return freeze(workspace, "s", "p")


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


class TestForms:
    def test_kto_has_a_desirable_and_an_undesirable_row_of_each_pair(
        self, frozen: PreferenceSet, tmp_path: Path
    ) -> None:
        assert export(frozen, tmp_path / "k.jsonl", format="kto") == 24
        rows, pairs = lines(tmp_path / "k.jsonl"), list(export_rows(frozen))
        assert [row["label"] for row in rows] == [True, False] * 12
        assert [row["completion"] for row in rows[::2]] == [pair["chosen"] for pair in pairs]
        assert [row["completion"] for row in rows[1::2]] == [pair["rejected"] for pair in pairs]
        assert {tuple(row) for row in rows} == {("prompt", "completion", "label")}

    def test_openai(self, frozen: PreferenceSet, tmp_path: Path) -> None:
        export(frozen, tmp_path / "o.jsonl", "train", "openai")
        row, pair = lines(tmp_path / "o.jsonl")[0], next(export_rows(frozen, "train"))
        assert row == {
            "input": {"messages": pair["prompt"]},
            "preferred_output": pair["chosen"],
            "non_preferred_output": pair["rejected"],
        }

    def test_what_openais_form_cannot_hold_is_named(self) -> None:
        two = [turn("assistant", "x"), turn("user", "y"), turn("assistant", "z")]
        row = {"id": "s:1", "prompt": "q", "chosen": two, "rejected": "no"}
        with pytest.raises(UsageError, match="row s:1: an answer has 3 turns"):
            list(rows_in("openai", iter([row])))  # type: ignore[list-item]
        row = {"id": "s:2", "prompt": [turn("system", "x")], "chosen": "a", "rejected": "b"}
        with pytest.raises(UsageError, match="row s:2: its prompt has no turn of a user"):
            list(rows_in("openai", iter([row])))  # type: ignore[list-item]
        row = {"id": "s:3", "prompt": "q", "chosen": "a", "rejected": "b"}
        (found,) = rows_in("openai", iter([row]))  # type: ignore[list-item]
        assert found["input"]["messages"] == [turn("user", "q")]

    def test_the_command(self, frozen: PreferenceSet, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        where = ["--workspace", str(workspace.root)]
        assert main(["prefs", "export", "p", "--format", "kto", *where]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 24
        assert main(["prefs", "export", "p", "--format", "datasets", *where]) == 2
        assert "needs --to" in capsys.readouterr().err


class TestBattles:
    def test_one_for_each_first_verdict(self, made: PairSet, workspace: Workspace, tmp_path: Path) -> None:
        pairs = list(made.pairs())
        with made.journal("alice") as journal:
            for pair, verdict in zip(pairs, ("a", "b", "tie", "both_bad", "skip"), strict=False):
                journal.append(pair.id, verdict, origin="screen", order="ba")  # type: ignore[arg-type]
            journal.append(pairs[0].id, "b", origin="screen", repeat=1, purpose="repeat")
        with made.journal("bob") as journal:
            journal.append(pairs[0].id, "b", origin="screen", order="ab")
        found = list(battles(made))
        assert [(one["question_id"], one["judge"], one["winner"]) for one in found] == [
            (pairs[0].id, "alice", "model_a"), (pairs[0].id, "bob", "model_b"), (pairs[1].id, "alice", "model_b"),
            (pairs[2].id, "alice", "tie"), (pairs[3].id, "alice", "tie (bothbad)"),
        ]  # fmt: skip
        assert found[0]["conversation_a"] == [*pairs[0].prompt, *pairs[0].a]
        assert {found[0]["model_a"], found[0]["model_b"]} == {"m1", "m2"}
        assert (found[0]["model_a"], found[0]["turn"]) == (pairs[0].source_a, 1)
        where = ["--workspace", str(workspace.root)]
        for name in ("b.json", "b.jsonl"):
            assert main(["pairs", "export", "s", "--to", str(tmp_path / name), *where]) == 0
        assert json.loads((tmp_path / "b.json").read_text()) == lines(tmp_path / "b.jsonl") == found
        assert main(["pairs", "export", "s", "--to", str(tmp_path / "b.json"), *where]) == 1, "it exists"
        assert main(["pairs", "export", "s", "--to", str(tmp_path / "b.csv"), *where]) == 2

    def test_of_one_question(self, workspace: Workspace) -> None:
        rows, form = [CandidatePair("q", "yes", "no")], form_of(criteria=["helpful", "honest"])
        made = create_pairs(workspace, "s", rows, {"dataset": "d"}, form=form)
        with made.journal("alice") as journal:
            journal.append(next(made.pairs()).id, "a", origin="screen", criterion="honest")
        assert list(battles(made)) == []
        assert len(list(battles(made, "honest"))) == 1
        with pytest.raises(UsageError, match="it has helpful, honest"):
            list(battles(made, "kind"))


@pytest.mark.slow
class TestOtherTools:
    def test_datasets_opens_every_file(self, frozen: PreferenceSet, tmp_path: Path) -> None:
        import datasets

        assert export(frozen, tmp_path / "saved", format="datasets") == 12
        saved = datasets.load_from_disk(str(tmp_path / "saved"))
        assert {name: len(one) for name, one in saved.items()} == {
            "train": frozen.info.counts["train"], "test": frozen.info.counts["eval"],
        }  # fmt: skip
        assert saved["train"].to_list() == list(export_rows(frozen, "train"))
        with pytest.raises(NameTaken):
            export(frozen, tmp_path / "saved", format="datasets")
        assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("ws")) == ["saved"]
        for name, form in (("k.jsonl", "kto"), ("o.jsonl", "openai"), ("p.parquet", "parquet")):
            export(frozen, tmp_path / name, format=form)
            kind = "parquet" if form == "parquet" else "json"
            loaded = datasets.load_dataset(kind, data_files=str(tmp_path / name), cache_dir=str(tmp_path / "cache"))
            assert len(loaded["train"]) == (24 if form == "kto" else 12)

    def test_trl_takes_its_rows_as_they_are(self, frozen: PreferenceSet, tmp_path: Path) -> None:
        import datasets
        from trl.data_utils import is_conversational, maybe_unpair_preference_dataset

        export(frozen, tmp_path / "saved", format="datasets")
        export(frozen, tmp_path / "k.jsonl", "train", "kto")
        paired = datasets.load_from_disk(str(tmp_path / "saved"))["train"]
        assert is_conversational(paired[0])
        theirs = sorted(maybe_unpair_preference_dataset(paired).to_list(), key=str)
        assert theirs == sorted(lines(tmp_path / "k.jsonl"), key=str)
