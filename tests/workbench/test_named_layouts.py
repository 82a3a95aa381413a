"""A fixture of every layout that people have: what it is seen as, and the row that comes of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import orjson
import pytest

from workbench.canonical_rows import RowRejected, assistant, user
from workbench.dataset_shapes import recognise
from workbench.dataset_store import add_dataset
from workbench.errors import UnreadableData
from workbench.row_conversion import to_canonical
from workbench.workspace import Workspace

Row = dict[str, Any]
Q, GOOD, BAD = user("why?"), assistant("because"), assistant("no")
MORE = user("and then?")
PREFERENCE = {"prompt": [Q], "chosen": [GOOD], "rejected": [BAD]}
SYSTEM = {"role": "system", "content": "be brief"}


def human(text: str) -> Row:
    return {"from": "human", "value": text}


def gpt(text: str) -> Row:
    return {"from": "gpt", "value": text}


def gemini(role: str, text: str) -> Row:
    return {"role": role, "parts": [{"text": text}]}


LAYOUTS: dict[str, tuple[Row, str, Row]] = {
    # name: (the row as people have it, its shape, what must be in the canonical row)
    "text": ({"text": "a text"}, "text", {"text": "a text"}),
    "messages": ({"messages": [Q, GOOD]}, "messages", {"messages": [Q, GOOD]}),
    "prompt of text": ({"prompt": "why?"}, "prompts", {"prompt": [Q]}),
    "prompt of messages": ({"prompt": [Q]}, "prompts", {"prompt": [Q]}),
    "prompt and completion": ({"prompt": "why?", "completion": "because"}, "prompt-completion",
                              {"prompt": [Q], "completion": [GOOD]}),
    "prompt and completion of messages": ({"prompt": [Q], "completion": [GOOD]}, "prompt-completion",
                                          {"prompt": [Q], "completion": [GOOD]}),
    "explicit": ({"prompt": "why?", "chosen": "because", "rejected": "no", "margin": 2}, "preference",
                 {**PREFERENCE, "margin": 2.0}),
    "explicit of messages": ({"prompt": [Q], "chosen": [GOOD], "rejected": [BAD]}, "preference", PREFERENCE),
    "implicit of messages": ({"chosen": [Q, GOOD], "rejected": [Q, BAD]}, "preference", PREFERENCE),
    "unpaired": ({"prompt": "why?", "completion": "because", "label": True}, "labelled",
                 {"prompt": [Q], "completion": [GOOD], "label": True}),
    "stepwise": ({"prompt": "why?", "completions": ["first", "second"], "labels": [True, False]}, "labelled",
                 {"prompt": [Q], "completion": [assistant("first\nsecond")], "label": False}),
    "alpaca": ({"instruction": "why?", "input": "this", "output": "because", "system": "be brief",
                "history": [["a", "b"]]}, "prompt-completion",
               {"prompt": [SYSTEM, user("a"), assistant("b"), user("why?\nthis")], "completion": [GOOD]}),
    "alpaca preference": ({"instruction": "why?", "input": "", "chosen": "because", "rejected": "no"}, "preference",
                          PREFERENCE),
    "sharegpt": ({"conversations": [human("why?"), gpt("because")], "system": "be brief"}, "messages",
                 {"messages": [SYSTEM, Q, GOOD]}),
    "sharegpt preference": ({"conversations": [human("why?")], "chosen": gpt("because"), "rejected": gpt("no")},
                            "preference", PREFERENCE),
    "sharegpt kto": ({"conversations": [human("why?"), gpt("because")], "kto_tag": False}, "labelled",
                     {"prompt": [Q], "completion": [GOOD], "label": False}),
    "argilla": ({"instruction": "why?", "chosen_response": "because", "rejected_response": "no"}, "preference",
                PREFERENCE),
    "icr": ({"input": "why?", "chosen": "because", "rejected": "no"}, "preference", PREFERENCE),
    "intel": ({"system": "be brief", "question": "why?", "chosen": "because", "rejected": "no"}, "preference",
              {**PREFERENCE, "prompt": [SYSTEM, Q]}),
    "chat template": ({"messages": [Q], "chosen": GOOD, "rejected": BAD}, "preference", PREFERENCE),
    "hh": ({"chosen": "\n\nHuman: why?\n\nAssistant: because", "rejected": "\n\nHuman: why?\n\nAssistant: no"},
           "preference", PREFERENCE),
    "ultrafeedback binarized": ({"prompt": "why?", "prompt_id": "x", "chosen": [Q, GOOD], "rejected": [Q, BAD],
                                 "messages": [Q, GOOD], "score_chosen": 8.0, "score_rejected": 3.5}, "preference",
                                PREFERENCE),
    "ultrafeedback": ({"instruction": "why?", "completions": [{"model": "m", "response": "no", "overall_score": 2.0},
                       {"model": "n", "response": "maybe", "overall_score": 5.0},
                       {"model": "o", "response": "because", "overall_score": 9.5}]}, "preference", PREFERENCE),
    "nectar": ({"prompt": "\n\nHuman: why? \n\nAssistant: ", "answers": [{"answer": "no", "rank": 7.0},
                {"answer": "because", "rank": 1.0}, {"answer": "hm", "rank": 3.0}]}, "preference", PREFERENCE),
    "arena": ({"question_id": "x", "model_a": "m", "model_b": "n", "winner": "model_b", "judge": "j", "turn": 2,
               "conversation_a": [Q, BAD, MORE, BAD], "conversation_b": [Q, GOOD, MORE, GOOD], "anony": True},
              "preference", {"prompt": [Q], "chosen": [GOOD, MORE, GOOD], "rejected": [BAD, MORE, BAD]}),
    "arena columns": ({"id": 1, "model_a": "m", "model_b": "n", "prompt": '["why?"]', "response_a": '["because"]',
                       "response_b": '["no"]', "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
                      "preference", PREFERENCE),
    "openai": ({"input": {"messages": [Q]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}, "preference",
               PREFERENCE),
    "swift": ({"messages": [Q, GOOD], "rejected_response": "no"}, "preference", PREFERENCE),
    "gemini": ({"contents": [gemini("user", "why?")], "system_instruction": {"parts": [{"text": "be brief"}]},
                "completions": [{"score": 0.0, "completion": gemini("model", "no")},
                                {"score": 1.0, "completion": gemini("model", "because")}]}, "preference",
               {**PREFERENCE, "prompt": [SYSTEM, Q]}),
    "shp": ({"history": "why?", "human_ref_A": "no", "human_ref_B": "because", "labels": 0, "score_A": 1, "score_B": 9},
            "preference", PREFERENCE),
    "summaries": ({"info": {"post": "why?", "title": "t"}, "summaries": [{"text": "no"}, {"text": "because"}],
                   "choice": 1}, "preference", PREFERENCE),
    "helpsteer": ({"prompt": "why?", "response": "because", "helpfulness": 4, "verbosity": 2}, "prompt-completion",
                  {"prompt": [Q], "completion": [GOOD], "tags": {"helpfulness": 4, "verbosity": 2}}),
    "helpsteer preference": ({"prompt": "why?", "response_1": "because", "response_2": "no", "preference_strength": -2},
                             "preference", PREFERENCE),
    "argilla ratings": ({"question": "why?", "chosen": "because", "rejected": "no", "chosen_rating": 9.0,
                         "rejected_rating": 2.0}, "preference", PREFERENCE),
    "own export": ({"pair_id": "x", "prompt": "why?", "chosen": "because", "rejected": "no", "verdict": "a",
                    "strength": 1, "annotator": "alice", "note": ""}, "preference", PREFERENCE),
}  # fmt: skip


def canonical(row: Row) -> Row:
    return dict(to_canonical(row, recognise([row]), "d:1"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(name: str) -> None:
    row, shape, wanted = LAYOUTS[name]
    assert recognise([row]).shape == shape
    made = canonical(row)
    for key, value in wanted.items():
        if key == "tags":
            assert made["tags"].items() >= value.items()
        else:
            assert made[key] == value


@pytest.mark.parametrize("name", [name for name, (_, shape, _) in LAYOUTS.items() if shape == "preference"])
def test_from_csv_where_lists_are_json_text(name: str, workspace: Workspace, tmp_path: Path) -> None:
    row, _, wanted = LAYOUTS[name]
    text = io.StringIO()
    cells = {
        key: orjson.dumps(value).decode() if isinstance(value, dict | list) else value for key, value in row.items()
    }
    writer = csv.DictWriter(text, cells)
    writer.writeheader()
    writer.writerow(cells)
    (tmp_path / "d.csv").write_text(text.getvalue())
    if name in ("sharegpt preference", "chat template"):  # a single turn in a cell of text is no list of turns
        return
    (made,) = add_dataset(workspace, tmp_path / "d.csv", "d").rows()
    assert made["chosen"] == wanted["chosen"]  # type: ignore[typeddict-item]
    assert made["rejected"] == wanted["rejected"]  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("arena", {"winner": "tie (bothbad)"}, "neither answer is preferred"),
        ("arena columns", {"winner_model_a": 0}, "neither answer is preferred"),
        ("arena columns", {"response_a": '["x", "y"]'}, "not one answer for each question"),
        ("ultrafeedback", {"completions": [{"response": "x", "overall_score": 1}] * 2}, "neither answer is preferred"),
        ("helpsteer preference", {"preference_strength": 0}, "neither answer is preferred"),
        ("helpsteer preference", {"preference_strength": "much"}, "preference_strength is not a number"),
        ("summaries", {"choice": 7}, "not two summaries and a choice"),
        ("openai", {"input": "x"}, "input is not an object with messages"),
        ("swift", {"messages": [Q]}, "the last turn is not the assistant's"),
        (
            "gemini",
            {"contents": [{"role": "user", "parts": [{"image": 1}]}]},
            "a turn holds something that is not text",
        ),
        ("gemini", {"contents": ["x"]}, "a turn without parts"),
        ("shp", {"human_ref_A": " "}, "empty answer"),
        ("stepwise", {"labels": [True]}, "not one label for each step"),
        ("arena", {"conversation_a": None}, "missing conversation_a"),
    ],
)
def test_rows_that_do_not_keep_to_it(name: str, change: Row, reason: str) -> None:
    good = LAYOUTS[name][0]
    with pytest.raises(RowRejected) as refused:
        to_canonical({**good, **change}, recognise([good]), "d:1")
    assert refused.value.reason == reason


def test_a_mapping_by_a_person_goes_before() -> None:
    row = LAYOUTS["helpsteer preference"][0]
    found = recognise([row], {"prompt": "prompt", "completion": "response_1"})
    assert (found.shape, found.mapping["completion"]) == ("prompt-completion", "response_1")
    with pytest.raises(UnreadableData, match="do not fit the shape text"):
        recognise([row], {"shape": "text"})
