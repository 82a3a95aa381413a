"""Every layout that people's files have is recognised, for a reason that is said, and its rows become canonical."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workbench.canonical_rows import RowRejected, group_of, prompt_of, prompts_of, said_in
from workbench.dataset_shapes import recognise
from workbench.errors import UnreadableData, UsageError
from workbench.row_conversion import to_canonical
from workbench.run_examples import frozen_example


def U(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def A(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def S(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}

CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("text", {"text": "words", "label": 1}, "text", {"text": "words", "tags": {"label": 1}}),
    ("prompts", {"prompt": "q"}, "prompts", {"prompt": [U("q")]}),
    ("prompt turns", {"prompt": [S("s"), U("q")]}, "prompts", {"prompt": [S("s"), U("q")]}),
    (
        "pair",
        {"prompt": "q", "completion": "r", "n": 3},
        "prompt-completion",
        {"prompt": [U("q")], "completion": [A("r")], "tags": {"n": 3}},
    ),
    ("question and answer", {"question": "q", "answer": "r"}, "prompt-completion", {"completion": [A("r")]}),
    (
        "alpaca",
        {"instruction": "do", "input": "this", "output": "done", "system": "be kind", "history": [["h", "i"]]},
        "prompt-completion",
        {"prompt": [S("be kind"), U("h"), A("i"), U("do\nthis")], "completion": [A("done")]},
    ),
    (
        "unpaired",
        {"prompt": "q", "completion": "r", "label": False},
        "labelled",
        {"prompt": [U("q")], "completion": [A("r")], "label": False, "tags": {"label": False}},
    ),
    (
        "a label that is no verdict",
        {"prompt": "q", "completion": "r", "label": "sports"},
        "prompt-completion",
        {"completion": [A("r")], "tags": {"label": "sports"}},
    ),
    ("messages", {"messages": [U("q"), A("r")]}, "messages", {"messages": [U("q"), A("r")]}),
    (
        "sharegpt with system",
        {"conversations": [HUMAN, GPT], "system": "s"},
        "messages",
        {"messages": [S("s"), U("q"), A("r")]},
    ),
    (
        "judged one by one",
        {"messages": [U("p"), A("o"), U("q"), A("r")], "label": "true"},
        "labelled",
        {"prompt": [U("p"), A("o"), U("q")], "completion": [A("r")], "label": True, "tags": {"label": True}},
    ),
    (
        "explicit texts",
        {"prompt": "q", "chosen": "g", "rejected": "b", "margin": 2},
        "preference",
        {"prompt": [U("q")], "chosen": [A("g")], "rejected": [A("b")], "margin": 2.0, "weight": 1.0, "tags": {}},
    ),
    (
        "explicit turns",
        {"prompt": [U("q")], "chosen": [A("g")], "rejected": [A("b")]},
        "preference",
        {"prompt": [U("q")], "chosen": [A("g")], "rejected": [A("b")]},
    ),
    (
        "sharegpt pair",
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "b"}},
        "preference",
        {"prompt": [U("q")], "chosen": [A("r")], "rejected": [A("b")]},
    ),
    (
        "ultrafeedback: the prompt is in the answers too",
        {"prompt": "q", "chosen": [U("q"), A("g")], "rejected": [U("q"), A("b")]},
        "preference",
        {"prompt": [U("q")], "chosen": [A("g")], "rejected": [A("b")]},
    ),
    (
        "prompt repeated in the texts",
        {"prompt": "q: ", "chosen": "q: g", "rejected": "q: b"},
        "preference",
        {"chosen": [A("g")], "rejected": [A("b")]},
    ),
    (
        "implicit turns",
        {"chosen": [U("q"), A("g")], "rejected": [U("q"), A("b")]},
        "preference",
        {"prompt": [U("q")], "chosen": [A("g")]},
    ),
    (
        "implicit texts",
        {"chosen": "Why? because", "rejected": "Why? never"},
        "preference",
        {"prompt": [U("Why?")], "chosen": [A("because")], "rejected": [A("never")]},
    ),
    (
        "hh",
        {"chosen": "\n\nHuman: q\n\nAssistant: g", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        "preference",
        {"prompt": [U("q")], "chosen": [A("g")], "rejected": [A("b")]},
    ),
    ("answers", {"prompt": "q", "a": "x", "b": "y"}, "answers", {"prompt": [U("q")], "a": [A("x")], "b": [A("y")]}),
    ("answer_a", {"prompt": "q", "answer_a": "x", "answer_b": "y"}, "answers", {"a": [A("x")]}),
    ("response_a", {"question": "q", "response_a": "x", "response_b": "y"}, "answers", {"b": [A("y")]}),
    ("two completions", {"prompt": "q", "completions": ["x", "y"]}, "answers", {"a": [A("x")], "b": [A("y")]}),
    (
        "two completions in objects",
        {"instruction": "q", "completions": [{"response": "x", "model": "m"}, {"response": "y", "model": "n"}]},
        "answers",
        {"a": [A("x")], "b": [A("y")]},
    ),
    (
        "turns as JSON in text",
        {"messages": '[{"role":"user","content":"q"},{"role":"assistant","content":"r"}]'},
        "messages",
        {"messages": [U("q"), A("r")]},
    ),
]


@pytest.mark.parametrize(("raw", "shape", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_recognised_and_converted(raw: dict[str, Any], shape: str, expected: dict[str, Any]) -> None:
    recognition = recognise([raw])
    row: dict[str, Any] = dict(to_canonical(raw, recognition, "d:1"))
    assert recognition.shape == shape
    assert {key: row[key] for key in expected} == expected
    assert row["id"] == "d:1"
    if shape in ("preference", "answers"):
        assert row["group"] == group_of(row["prompt"])
    assert recognition.why.endswith(".")
    assert any(column in recognition.why for column in raw)


def test_the_explanation_names_the_turns_that_there_are() -> None:
    assert recognise([{"prompt": "q"}]).why.endswith("texts become one user turn.")
    assert "one assistant turn for each answer" in recognise([{"prompt": "q", "a": "x", "b": "y"}]).why
    assert recognise([{"prompt": "q", "completion": "r"}]).why.endswith("texts become one user and one assistant turn.")


def test_a_label_that_is_no_verdict_rejects_its_row() -> None:
    raw = {"prompt": "q", "completion": "r", "label": True}
    found = recognise([raw, raw, {**raw, "label": None}])
    assert found.shape == "labelled"
    with pytest.raises(RowRejected, match="the label is neither true nor false"):
        to_canonical({**raw, "label": "perhaps"}, found, "1")
    assert recognise([raw], {"shape": "prompt-completion"}).form == "pair"


class TestMapping:
    def test_columns_by_name(self) -> None:
        raw = {"frage": "q", "antwort": "r"}
        found = recognise([raw], {"prompt": "frage", "completion": "antwort"})
        assert found.shape == "prompt-completion"
        assert found.why.startswith("as mapped")
        assert to_canonical(raw, found, "1")["completion"] == [A("r")]  # type: ignore[typeddict-item]

    def test_a_mapped_field_wins_over_its_usual_column(self) -> None:
        raw = {"prompt": "p", "completion": "c", "body": "t"}
        assert recognise([raw], {"text": "body"}).shape == "text"
        assert recognise([raw], {"prompt": "body"}).mapping["prompt"] == "body"
        assert recognise([raw], {"shape": "prompts"}).shape == "prompts"

    def test_plain_texts_stay_strings(self) -> None:
        raw = {"prompt": "q", "chosen": "g", "rejected": "b"}
        found = recognise([raw], {"as": "plain"})
        row: dict[str, Any] = dict(to_canonical(raw, found, "1"))
        assert (row["prompt"], row["chosen"], row["rejected"]) == ("q", "g", "b")
        assert "as=plain" in found.why

    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            ({"promt": "q"}, "Did you mean prompt"),
            ({"prompt": "quesion"}, "Did you mean 'question'"),
            ({"shape": "chat"}, "Shapes: text"),
            ({"as": "raw"}, "chat or plain"),
        ],
    )
    def test_a_wrong_mapping_names_the_nearest(self, mapping: dict[str, str], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            recognise([{"question": "q", "answer": "r"}], mapping)

    def test_an_unknown_layout_lists_its_columns_and_an_example(self) -> None:
        with pytest.raises(UnreadableData, match=r"title \(text\); price \(a number\).*--map text=title"):
            recognise([{"title": "t", "price": 3}])


PAIR = recognise([{"prompt": "q", "chosen": "g", "rejected": "b"}])
ANSWERS = recognise([{"prompt": "q", "a": "x", "b": "y"}])
CHAT = recognise([{"messages": [U("q"), A("r")]}])
MARGIN = recognise([{"prompt": "q", "chosen": "g", "rejected": "b", "margin": "1"}])


RAIN = {"type": "function", "function": {"name": "rain", "parameters": {"type": "object", "properties": {}}}}
TOOLS = recognise([{"messages": [U("q"), A("r")], "tools": [RAIN]}])


class TestTools:
    """What is called, what it says, what may be called and what was thought stay in the row."""

    CALLED = {"type": "function", "function": {"name": "rain", "arguments": {"place": "sea"}}}  # noqa: RUF012
    RESULT = {"role": "tool", "content": "", "tool_call_id": "1"}  # noqa: RUF012

    def test_of_the_openai_shape(self) -> None:
        call = {"id": "1", "type": "function", "function": {"name": "rain", "arguments": '{"place": "sea"}'}}
        turns = [
            U("q"),
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "I look.", "name": None},
            {**self.RESULT, "refusal": None},
            {**A("r"), "reasoning_content": " ", "tool_calls": []},
        ]
        row: Any = to_canonical({"messages": turns, "tools": [RAIN]}, TOOLS, "1")
        assert row["tools"] == [RAIN]
        assert row["messages"] == [
            U("q"),
            {**A(""), "tool_calls": [{"id": "1", **self.CALLED}], "reasoning_content": "I look."},
            self.RESULT,
            A("r"),
        ]
        assert frozen_example(row, "sft")["tools"] == [RAIN]
        assert [prompt["tools"] for prompt in prompts_of([row])] == [[RAIN]]
        assert prompt_of(row) == row["messages"][:3]

    def test_of_sharegpt(self) -> None:
        value = json.dumps({"name": "rain", "arguments": {"place": "sea"}})
        turns = [HUMAN, {"from": "function_call", "value": value}, {"from": "observation", "value": "yes"}, GPT]
        raw = {"conversations": turns, "tools": json.dumps([RAIN])}
        row: Any = to_canonical(raw, recognise([raw]), "1")
        assert row["tools"] == [RAIN]
        assert row["messages"][1] == {**A(""), "tool_calls": [self.CALLED]}

    def test_answers_that_call_differently_differ(self) -> None:
        calls = [{"role": "assistant", "tool_calls": [{"name": name, "arguments": {}}]} for name in ("rain", "wind")]
        row: Any = to_canonical({"prompt": [U("q")], "chosen": calls[:1], "rejected": calls[1:]}, PAIR, "1")
        assert [said_in(row[side][0]) for side in ("chosen", "rejected")] == ["rain({})", "wind({})"]


@pytest.mark.parametrize(
    ("recognition", "raw", "reason"),
    [
        (PAIR, {"prompt": "q", "chosen": "x", "rejected": " x\n"}, "chosen equals rejected"),
        (PAIR, {"prompt": "q", "chosen": "", "rejected": "x"}, "empty answer"),
        (PAIR, {"prompt": "q", "chosen": None, "rejected": "x"}, "missing answer"),
        (PAIR, {"prompt": "q", "rejected": "x"}, "missing answer"),
        (PAIR, {"prompt": "  ", "chosen": "a", "rejected": "b"}, "empty prompt"),
        (PAIR, {"prompt": 7, "chosen": "a", "rejected": "b"}, "prompt is not text"),
        (PAIR, {"prompt": "q", "chosen": {"deep": {"er": 1}}, "rejected": "b"}, "unknown role"),
        (PAIR, {"prompt": [A("x")], "chosen": "a", "rejected": "b"}, "the prompt ends with an assistant turn"),
        (PAIR, {"prompt": "q", "chosen": [U("x")], "rejected": "b"}, "the answer is not an assistant turn"),
        (ANSWERS, {"prompt": "q", "a": "x", "b": "x "}, "both answers are equal"),
        (ANSWERS, {"prompt": "q", "a": "x", "b": ""}, "empty answer"),
        (MARGIN, {"prompt": "q", "chosen": "a", "rejected": "b", "margin": "wide"}, "margin is not a number"),
        (MARGIN, {"prompt": "q", "chosen": "a", "rejected": "b", "margin": "nan"}, "margin is not a number"),
        (CHAT, {"messages": []}, "empty messages"),
        (CHAT, {"messages": "hello"}, "messages is not a list of messages"),
        (CHAT, {"messages": [U("q")]}, "no assistant turn"),
        (CHAT, {"messages": [U("q"), {"role": "wizard", "content": "x"}]}, "unknown role"),
        (CHAT, {"messages": [U("q"), {"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "a tool call names no"),
        (CHAT, {"messages": [U("q"), {"role": "assistant", "tool_calls": "rain()"}]}, "tool calls are not a list"),
        (CHAT, {"messages": [U("q"), {"from": "function_call", "value": "rain()"}]}, "a function_call turn is not"),
        (TOOLS, {"messages": [U("q"), A("r")], "tools": "rain()"}, "tools are not a list of functions"),
        (CHAT, {"messages": [U("q"), A("")]}, "empty answer"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image"}]}, A("x")]}, "a turn holds something"),
    ],
)
def test_a_row_that_does_not_fit_is_rejected_for_a_countable_reason(recognition: Any, raw: Any, reason: str) -> None:
    with pytest.raises(RowRejected) as caught:
        to_canonical(raw, recognition, "1")
    assert caught.value.reason.startswith(reason)


def test_the_same_question_is_one_group_and_prompts_come_from_any_shape() -> None:
    assert group_of("q") == group_of([U(" q\n")]) != group_of([S("s"), U("q")])  # type: ignore[list-item]
    row = to_canonical({"messages": [U("q"), A("r"), U("s"), A("t")]}, CHAT, "1")
    assert prompt_of(row) == [U("q"), A("r"), U("s")]
