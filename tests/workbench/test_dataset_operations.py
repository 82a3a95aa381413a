"""Datasets made of datasets: what each operation keeps, what it leaves out, and that its recipe makes it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workbench.test_lint import pairs
from workbench.canonical_rows import SHAPES, assistant, group_of, user
from workbench.cli import main
from workbench.dataset_shapes import Recognition
from workbench.dataset_store import Dataset, add_dataset, open_dataset
from workbench.made_dataset import make_like, remake
from workbench.pair_sets import CandidatePair, create_pairs
from workbench.preferences import freeze, open_preference_set
from workbench.row_conversion import to_canonical
from workbench.row_shapes import ONE_BY_ONE, PAIRED, converted, written, written_recognition
from workbench.workspace import Workspace

Row = dict[str, Any]
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"at": "rim"}}}]}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
ASK, REPLY = user("why?"), assistant("because")
TALK = [{"role": "system", "content": "be brief"}, ASK, CALL, {"role": "tool", "content": "true"}]
ROWS: dict[str, list[Row]] = {
    "text": [{"text": "one"}, {"text": "two\n"}],
    "prompt-completion": [{"prompt": TALK, "completion": [REPLY], "tools": TOOLS, "topic": "wheel"}],
    "messages": [{"messages": [*TALK, REPLY, ASK, assistant("again")], "tools": TOOLS, "topic": "wheel"}],
    "preference": [{"prompt": TALK, "chosen": [REPLY], "rejected": [assistant("no")], "tools": TOOLS, "margin": 0.5}],
    "answers": [{"prompt": [ASK], "a": [REPLY], "b": [assistant("no")], "topic": 3}],
    "prompts": [{"prompt": TALK, "tools": TOOLS}],
    "labelled": [{"prompt": [ASK], "completion": [REPLY], "label": True},
                 {"prompt": [ASK], "completion": [assistant("no")], "label": False}],
}  # fmt: skip


def added(workspace: Workspace, rows: list[Row], name: str = "d", **mapping: str) -> Dataset:
    path = workspace.root / f"{name}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return add_dataset(workspace, path, name, mapping)


def run(workspace: Workspace, *arguments: str) -> int:
    return main(["--workspace", str(workspace.root), "data", *arguments])


def rows_of(workspace: Workspace, name: str) -> list[Row]:
    """Canonical rows without their ids, which name the dataset."""
    return [{key: value for key, value in row.items() if key != "id"} for row in open_dataset(workspace, name).rows()]


def remade(workspace: Workspace, name: str) -> bool:
    """Whether the recipe gives the same bytes, in place and as a new dataset."""
    sha256 = open_dataset(workspace, name).info.source.sha256
    again = make_like(workspace, name, f"{name}-again").info.source.sha256
    return again == sha256 == remake(workspace, name).sha256


class TestConverting:
    @pytest.mark.parametrize(("shape", "to"), sorted((*ONE_BY_ONE, *PAIRED)))
    def test_every_conversion_gives_rows_that_are_read_again(self, shape: str, to: str) -> None:
        """What is written is read as the same row; nothing of the conversation is lost on the way."""
        rows = ROWS[shape]
        if (shape, to) in PAIRED and shape == "prompt-completion":
            rows = [{**rows[0], "score": 1}, {**rows[0], "completion": [assistant("no")], "score": 2}]
        recognition = written_recognition(shape, "", plain=False)  # type: ignore[arg-type]
        source = [to_canonical(row, recognition, f"d:{n}") for n, row in enumerate(rows)]
        by = "score" if (shape, to) == ("prompt-completion", "preference") else ""
        made = list(converted(lambda: source, shape, to, by))  # type: ignore[arg-type]
        assert made
        for row in made:
            raw = orjson.loads(orjson.dumps(written(row, to, plain=False)))  # type: ignore[arg-type]
            again: Row = dict(to_canonical(raw, written_recognition(to, "", plain=False), "e:1"))  # type: ignore[arg-type]
            for key in set(again) - {"id", "group", "tags", "weight"}:
                assert again[key] == row.get(key)
            if "prompt" in again:
                assert again["prompt"] == (
                    TALK if shape in ("preference", "prompt-completion", "prompts") else again["prompt"]
                )
        if by:
            assert made[0]["chosen"] == [assistant("no")]

    def test_a_verdict_becomes_two_labels_and_back(self, workspace: Workspace) -> None:
        added(workspace, pairs(rows=20))
        assert run(workspace, "convert", "d", "--to", "labelled", "--name", "judged") == 0
        assert [row["label"] for row in rows_of(workspace, "judged")] == [True, False] * 20
        assert run(workspace, "convert", "judged", "--to", "preference", "--name", "back") == 0
        keep = ("prompt", "chosen", "rejected", "group")
        assert [[row[key] for key in keep] for row in rows_of(workspace, "back")] == [
            [row[key] for key in keep] for row in rows_of(workspace, "d")
        ]
        assert remade(workspace, "judged")
        assert remade(workspace, "back")
        assert "'prompt'" not in open_dataset(workspace, "back").info.recognition.why

    def test_more_answers_of_one_kind_are_left_out(self, workspace: Workspace) -> None:
        labels = [("p", True), ("p", False), ("p", False), ("q", True), ("r", False), ("p", True), ("r", True)]
        added(workspace, [{"prompt": p, "completion": f"{n}", "label": label} for n, (p, label) in enumerate(labels)])
        assert run(workspace, "convert", "d", "--to", "preference", "--name", "e") == 0
        made = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows_of(workspace, "e")]
        assert made == [("0", "1"), ("5", "2"), ("6", "4")]

    def test_plain_texts_stay_plain(self, workspace: Workspace) -> None:
        added(workspace, [{"prompt": f"{n} +", "chosen": " 1", "rejected": " 2"} for n in range(3)], **{"as": "plain"})
        assert run(workspace, "convert", "d", "--to", "labelled", "--name", "e") == 0
        assert rows_of(workspace, "e")[0]["prompt"] == "0 +"
        assert run(workspace, "convert", "d", "--to", "messages", "--name", "f") == 0
        assert rows_of(workspace, "f")[0]["messages"] == [user("0 +"), assistant(" 1")]

    def test_the_side_of_an_answer_tells_nothing(self, workspace: Workspace) -> None:
        added(workspace, pairs(rows=200))
        assert run(workspace, "convert", "d", "--to", "answers", "--name", "e") == 0
        before = rows_of(workspace, "d")
        first = sum(made["a"] == row["chosen"] for made, row in zip(rows_of(workspace, "e"), before, strict=True))
        assert 70 < first < 130
        assert remade(workspace, "e")

    def test_a_preference_set(self, workspace: Workspace) -> None:
        made = create_pairs(
            workspace, "p", [CandidatePair(r["prompt"], r["chosen"], r["rejected"]) for r in pairs()], {}
        )
        with made.journal("alice") as journal:
            journal.append_many([journal.prepare(one.id, "a", origin="screen") for one in made.pairs()])
        freeze(workspace, "p", "v1")
        assert run(workspace, "convert", "v1", "--to", "preference", "--side", "eval", "--name", "rows") == 0
        held_out = [row["chosen"] for row in open_preference_set(workspace, "v1").rows("eval")]
        assert [row["chosen"] for row in rows_of(workspace, "rows")] == held_out
        assert remade(workspace, "rows")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--to", "text"], "has the shape preference, which cannot become text. It can become: answers, labelled"),
            (["--to", "prompts", "--by", "x"], "for prompt-completion to preference alone"),
        ],
    )
    def test_what_cannot_be(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
    ) -> None:
        added(workspace, pairs(rows=3))
        assert run(workspace, "convert", "d", *arguments, "--name", "e") == 2
        assert said in capsys.readouterr().err
        assert workspace.names("datasets") == ["d"]

    @settings(max_examples=15, deadline=None)
    @given(
        st.text(min_size=1, max_size=20).filter(str.strip),
        st.dictionaries(st.text(min_size=1, max_size=9), st.text(min_size=1, max_size=9), max_size=3),
    )
    def test_any_text_and_any_tag_come_back(self, text: str, tags: dict[str, str]) -> None:
        try:
            text.encode()
            orjson.dumps(tags)
        except (UnicodeEncodeError, TypeError):
            return
        row = {"id": "d:1", "prompt": text, "completion": text, "tags": tags}
        raw = orjson.loads(orjson.dumps(written(row, "prompt-completion", plain=True)))
        again: Row = dict(to_canonical(raw, written_recognition("prompt-completion", "", plain=True), "e:1"))
        assert (again["prompt"], again["completion"]) == (text, text)
        kept = {name for name in tags if name not in ("prompt", "completion", "tools")}
        assert {name: value for name, value in again["tags"].items() if name in kept} == {n: tags[n] for n in kept}


class TestChoosingRows:
    def test_a_sample_keeps_rows_as_they_are(self, workspace: Workspace) -> None:
        rows = [{"prompt": f"q{n}", "completion": "" if n % 10 == 0 else f"a{n}", "odd": [n, None]} for n in range(50)]
        added(workspace, rows)
        assert run(workspace, "sample", "d", "--rows", "12", "--name", "few") == 0
        raw = [orjson.loads(line) for line in (workspace.datasets / "few" / "data.jsonl").read_bytes().splitlines()]
        assert len(raw) == 12
        assert raw == [row for row in rows if row in raw]
        assert run(workspace, "sample", "d", "--rows", "12", "--seed", "2", "--name", "other") == 0
        assert rows_of(workspace, "few") != rows_of(workspace, "other")
        assert remade(workspace, "few")

    def test_no_prompt_is_on_both_sides_of_a_split(self, workspace: Workspace) -> None:
        rows = [{"prompt": f"q{n % 40}", "completion": f"a{n}"} for n in range(120)]
        added(workspace, rows)
        assert run(workspace, "split", "d", "--share", "0.25", "--name", "train", "--eval-name", "held") == 0
        groups = [{group_of(row["prompt"]) for row in rows_of(workspace, name)} for name in ("train", "held")]
        assert groups[0].isdisjoint(groups[1])
        assert sum(open_dataset(workspace, name).info.rows for name in ("train", "held")) == 120
        assert 2 <= len(groups[1]) <= 20
        assert remade(workspace, "train")
        assert remade(workspace, "held")

    def test_columns_are_renamed_and_read_as_before(self, workspace: Workspace) -> None:
        added(workspace, [{"question": f"q{n}", "answer": f"a{n}", "topic": "x"} for n in range(5)])
        code = run(workspace, "rename", "d", "--column", "question=ask", "--column", "topic=tag", "--name", "e")
        made, before = rows_of(workspace, "e"), rows_of(workspace, "d")
        assert code == 0
        assert [row["prompt"] for row in made] == [row["prompt"] for row in before]
        assert made[0]["tags"] == {"tag": "x"}
        assert open_dataset(workspace, "e").info.columns.keys() == {"ask", "answer", "tag"}
        assert remade(workspace, "e")

    def test_datasets_of_one_shape_one_after_another(self, workspace: Workspace) -> None:
        added(workspace, [{"prompt": "a", "completion": "b"}], "one")
        added(workspace, [{"messages": [user("x"), assistant("y")], "label": True}], "two")
        added(workspace, [{"instruction": "c", "output": "d"}], "three")
        assert run(workspace, "concat", "one", "three", "--name", "both") == 0
        assert [row["tags"]["dataset"] for row in rows_of(workspace, "both")] == ["one", "three"]
        assert remade(workspace, "both")
        assert run(workspace, "concat", "one", "two", "--name", "not") == 2
        assert run(workspace, "concat", "one", "one", "--name", "not") == 2

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["sample", "d", "--rows", "9", "--name", "e"], "d has 3 usable rows"),
            (["rename", "d", "--column", "x=y", "--name", "e"], "no such column. There are: prompt, chosen, rejected"),
            (["rename", "d", "--column", "chosen=prompt", "--name", "e"], "two columns would be called 'prompt'"),
            (["split", "d", "--name", "e", "--eval-name", "e"], "must differ"),
            (["sample", "d", "--rows", "2", "--name", "d"], "the name d is taken"),
            (["remake", "d"], "was added from"),
        ],
    )
    def test_wrong_use(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
    ) -> None:
        added(workspace, pairs(rows=3))
        assert run(workspace, *arguments) in (1, 2)
        assert said in capsys.readouterr().err
        assert workspace.names("datasets") == ["d"]


def test_every_shape_can_be_written() -> None:
    for shape in SHAPES:
        assert isinstance(written_recognition(shape, "", plain=False), Recognition)


def test_the_recipe_is_told(workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    added(workspace, pairs(rows=4))
    assert run(workspace, "convert", "d", "--to", "prompts", "--name", "asked", "--json") == 0
    told = json.loads(capsys.readouterr().out)["datasets"][0]
    assert told["recipe"]["sources"] == [
        {"name": "d", "sha256": open_dataset(workspace, "d").info.source.sha256, "side": ""}
    ]
    assert run(workspace, "show", "asked") == 0
    assert "workbench data convert d --to prompts" in capsys.readouterr().out
    assert run(workspace, "rm", "d", "--yes") == 1
    assert "dataset asked" in capsys.readouterr().err
