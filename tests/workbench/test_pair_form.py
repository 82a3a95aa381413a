"""The form that makes pairs: what it offers, what is wrong at a glance, and the request that it becomes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.workbench.model_server import serving
from workbench.dataset_store import add_dataset
from workbench.errors import UsageError
from workbench.label_form import Criterion, LabelForm
from workbench.pair_form import (
    NEW_ARENA,
    PairDraft,
    first_pair_draft,
    look_around,
    name_for,
    outlook,
    pair_fields,
    pair_problems,
    pair_request,
)
from workbench.pair_making import PairRequest, make_pair_set
from workbench.pair_sharing import Sharing
from workbench.workspace import Workspace


@pytest.fixture
def filled(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name, row in (("answers", {"prompt": "q{}", "a": "yes {}", "b": "no {}"}), ("asked", {"prompt": "q{}"})):
        file = tmp_path / f"{name}.jsonl"
        rows = [{key: text.format(n) for key, text in row.items()} for n in range(6)]
        file.write_text("".join(json.dumps(one) + "\n" for one in rows))
        add_dataset(workspace, file, name, copy=True)
    return workspace


def draft(**typed: str) -> PairDraft:
    made = PairDraft()
    for key, text in typed.items():
        made = made.put(key, text)
    return made


def test_it_begins_with_what_there_is(filled: Workspace) -> None:
    around = look_around(filled)
    first = first_pair_draft(around)
    assert (first.value("kind"), first.value("data"), first.value("name")) == ("dataset", "answers", "answers")
    assert pair_problems(first, around, filled) == {}
    assert pair_request(first) == PairRequest("answers", dataset="answers")
    assert outlook(first, around)[0] == "6 pairs at most: equal answers make none"
    asked = first_pair_draft(around, "asked")
    assert (asked.value("kind"), asked.value("prompts"), asked.value("model")) == ("models", "asked", "sample")
    make_pair_set(filled, pair_request(first))
    assert first_pair_draft(look_around(filled)).value("name") == "answers-2"


def test_without_anything_it_says_what_is_missing(workspace: Workspace) -> None:
    around = look_around(workspace)
    problems = pair_problems(first_pair_draft(around), around, workspace)
    assert problems == {"prompts": "nothing here has prompts; add a dataset"}
    of_data = pair_problems(draft(kind="dataset", name="n"), around, workspace)
    assert of_data == {"data": "none has pairs yet; add one, or let models answer"}


def test_the_request_holds_what_was_typed(filled: Workspace, tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text("be fair")
    typed = draft(
        kind="models", prompts="asked", model="sample", model2="run:x", samples="3", temperature="0.5", top_p="0.9",
        max_new_tokens="20", seed="7", limit="4", pairing="best-worst", reward_model="run:r", name="mine", scale="5",
        criteria="helpful=Which helps?; honest", tags="too long, made up", guidelines=str(guide), overlap="2",
        repeat_share="0.1", next="active", random_share="0.3", calibration="known.jsonl",
    )  # fmt: skip
    request = pair_request(typed)
    asked = request.sampling
    assert (asked.samples, asked.temperature, asked.top_p, asked.max_new_tokens, asked.seed) == (3, 0.5, 0.9, 20, 7)
    assert (request.models, request.limit, request.pairing) == (("sample", "run:x"), 4, "best-worst")
    assert (request.reward_model, request.calibration) == ("run:r", "known.jsonl")
    questions = (Criterion("helpful", "Which helps?"), Criterion("honest"))
    assert request.form == LabelForm("five-way", ("too long", "made up"), questions, "be fair")
    assert request.sharing == Sharing(2, 0.1, "active", 0.3)
    assert "24 to be given" in outlook(typed, look_around(filled))[0]
    keys = [one.key for one in pair_fields(typed, look_around(filled), every=True)]
    assert len(keys) == len(set(keys)) == len(typed.typed), "every setting has its row"


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("samples", "1", "one model needs 2"), ("samples", "two", "a whole number"), ("temperature", "0", "one answer"),
        ("temperature", "-1", "a number from 0"), ("top_p", "0", "above 0"), ("overlap", "-1", "a whole number from 0"),
        ("repeat_share", "2", "a number from 0 to 1"), ("name", "a b", "cannot name"), ("name", "", "give it a name"),
        ("model", "", "name a model"), ("model2", "sample", "the same as the first"),
        ("model", "url:http://h", "#NAME"),
        ("pairing", "best-worst", "reward_model: name a run"), ("criteria", "a; a", "name each once"),
        ("tags", "a,a", "each once"), ("guidelines", "/nowhere", "No such file"), ("limit", "0", "empty for all"),
        ("prompts", "gone", "choose the prompts"),
    ],
)  # fmt: skip
def test_what_is_wrong_stands_beside_its_field(filled: Workspace, key: str, text: str, said: str) -> None:
    around = look_around(filled)
    sound = draft(kind="models", prompts="asked", model="sample", name="n")
    assert pair_problems(sound, around, filled) == {}
    where, colon, words = said.partition(": ")
    field, words = (where, words) if colon and where == "reward_model" else (key, said)
    assert words in pair_problems(sound.put(key, text), around, filled)[field]


def test_every_pairing_is_counted_before_it_is_made(filled: Workspace) -> None:
    around = look_around(filled)
    sound = draft(kind="models", prompts="asked", model="sample", name="n", samples="4")
    for pairing, models, pairs in (("each", 1, 12), ("all", 1, 36), ("all", 2, 168), ("each", 2, 24)):
        made = sound.put("pairing", pairing).put("model2", "run:x" if models == 2 else "")
        assert f"{pairs} pairs at most" in outlook(made, around)[1]


def test_a_set_is_made_of_a_server_as_the_form_says(filled: Workspace) -> None:
    around = look_around(filled)
    with serving() as server:
        typed = draft(
            kind="models", prompts="asked", model=f"url:{server.url}#m", samples="3", pairing="all", name="n",
            limit="2", overlap="2", scale="5",
        )  # fmt: skip
        assert pair_problems(typed, around, filled) == {}
        made = make_pair_set(filled, pair_request(typed), quiet=True)
    assert (made.info.rows, made.sharing.overlap, made.form.scale) == (6, 2, "five-way")
    assert made.info.source["prompts"]["asked"] == 2
    with pytest.raises(UsageError, match="goes with --pairing best-worst"):
        make_pair_set(filled, PairRequest("o", prompts="asked", models=("sample",), reward_model="run:x"), quiet=True)


class TestArena:
    def test_its_fields_and_its_request(self, filled: Workspace) -> None:
        around = look_around(filled)
        made = draft(kind="arena", prompts="asked", model="sample", model2="run:x", name="duel", limit="4", overlap="x")
        keys = [one.key for one in pair_fields(made, around, every=True)]
        assert keys == [
            "kind", "prompts", "model", "model2", "samples", "limit", "name", "temperature", "top_p",
            "max_new_tokens", "seed",
        ]  # fmt: skip
        assert pair_problems(made, around, filled) == {}, "what the form does not show is not wrong"
        request = pair_request(made)
        assert (request.kind, request.models, request.limit) == ("arena", ("sample", "run:x"), 4)
        assert (request.sampling.samples, request.pairing, request.sharing) == (1, "each", Sharing())
        assert outlook(made, around)[:2] == [
            "4 prompts at most, 2 answers each: 8 to be given",
            "4 pairs at most: equal answers make none, and count as a tie",
        ]
        assert "0.50 to ±0.35" in outlook(made, around)[2], "Wilson, 2 of 4: 0.15 to 0.85"

    def test_what_is_wrong_and_its_name(self, filled: Workspace) -> None:
        around = look_around(filled)
        first = first_pair_draft(around, NEW_ARENA)
        assert first.value("name") == "arena"
        assert pair_problems(first, around, filled) == {"model2": "name a second one to compare"}
        same = first.put("model2", first.value("model"))
        assert pair_problems(same, around, filled) == {"model2": "the same as the first; name another"}
        assert name_for(first.put("model2", "url:http://x/v1#big"), around) == "sample-against-v1-big"
        taken = replace(around, arenas=("sample-against-v1-big",))
        assert name_for(first.put("model2", "url:http://x/v1#big"), taken) == "sample-against-v1-big-2"
