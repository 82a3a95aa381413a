"""Layouts of rows that are known by name: arenas, ranked answers, and the preference files of other services.

Owns a table: the columns by which a layout is known, and what its rows are. They are looked for before the general
forms of `dataset_shapes`, because some of those would fit, and lose a verdict. Each has a fixture in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from workbench.canonical_rows import (
    Message,
    RowRejected,
    Shape,
    as_messages,
    as_text,
    assistant,
    require_answer,
    require_open_prompt,
    user,
)
from workbench.dialogue_text import hh_turns, is_hh_dialogue, split_shared_turns

Raw = Mapping[str, Any]
Fields = dict[str, Any]
TIE = "neither answer is preferred"


@dataclass(frozen=True)
class Layout:
    """One named layout."""

    form: str
    shape: Shape
    columns: tuple[str, ...]
    """All of them must be there."""
    why: str
    convert: Callable[[Raw], Fields]
    fits: Callable[[Raw], bool] = lambda row: True
    """What must hold of most rows besides."""


def layout_of(sample: list[dict[str, Any]]) -> Layout | None:
    """The layout of the rows in a sample, if it is one of these."""
    there = {name for row in sample for name, value in row.items() if value is not None}
    for layout in LAYOUTS:
        if there.issuperset(layout.columns):
            whole = [row for row in sample if all(row.get(name) is not None for name in layout.columns)]
            if whole and 2 * sum(map(layout.fits, whole)) > len(whole):
                return layout
    return None


def _parsed(value: Any) -> Any:
    """A value, or what stands in it as JSON text: CSV holds nothing else."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _preferred(prompt: Any, better: Any, worse: Any) -> Fields:
    return {"prompt": prompt, "chosen": better, "rejected": worse}


def _asked(text: Any) -> list[Message]:
    """A prompt that is a text, or a dialogue whose last turn is open."""
    words = as_text(text, "prompt")
    if not is_hh_dialogue(words):
        return [user(words)]
    turns = hh_turns(words)
    if turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns.pop()
    return require_open_prompt(turns)


def _said(text: Any) -> list[Message]:
    return [assistant(as_text(text, "answer"))]


def _arena(row: Raw) -> Fields:
    both = {name: as_messages(_parsed(row[f"conversation_{name}"]), "conversation") for name in ("a", "b")}
    winner = str(row["winner"]).strip().removeprefix("model_")
    if winner not in both:
        raise RowRejected(TIE)
    return _preferred(*split_shared_turns(both[winner], both["b" if winner == "a" else "a"]))


def _arena_columns(row: Raw) -> Fields:
    """The form of 55,000 battles: lists of what was asked and answered, and a column for each outcome."""
    wins = {name: str(row[f"winner_model_{name}"]).strip() in ("1", "True", "true") for name in ("a", "b")}
    if wins["a"] == wins["b"]:
        raise RowRejected(TIE)
    asked = _as_list(_parsed(row["prompt"]))
    talks = []
    for name in ("a", "b"):
        answers = _as_list(_parsed(row[f"response_{name}"]))
        if len(answers) != len(asked):
            raise RowRejected("not one answer for each question")
        turns = [
            (user(as_text(q, "prompt")), assistant(as_text(a, "answer"))) for q, a in zip(asked, answers, strict=True)
        ]
        talks.append([turn for pair in turns for turn in pair])
    return _preferred(*split_shared_turns(*(talks if wins["a"] else reversed(talks))))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _openai(row: Raw) -> Fields:
    given = _parsed(row["input"])
    if not isinstance(given, dict):
        raise RowRejected("input is not an object with messages")
    prompt = require_open_prompt(as_messages(given.get("messages"), "messages"))
    better, worse = (
        require_answer(as_messages(_parsed(row[name]), "answer"))
        for name in ("preferred_output", "non_preferred_output")
    )
    return _preferred(prompt, better, worse)


def _swift(row: Raw) -> Fields:
    turns = as_messages(_parsed(row["messages"]), "messages")
    if turns[-1]["role"] != "assistant" or len(turns) < 2:
        raise RowRejected("the last turn is not the assistant's")
    return _preferred(require_open_prompt(turns[:-1]), turns[-1:], _said(row["rejected_response"]))


def _gemini(row: Raw) -> Fields:
    prompt = [_content(one) for one in _as_list(_parsed(row["contents"]))]
    if instruction := _parsed(row.get("system_instruction")):
        prompt.insert(0, {"role": "system", "content": _content({**instruction, "role": "system"})["content"]})
    scored = [one for one in _as_list(_parsed(row["completions"])) if isinstance(one, dict)]
    answers = {float(one.get("score", -1)): one.get("completion") for one in scored}
    if len(scored) != 2 or len(answers) != 2:
        raise RowRejected(TIE)
    better, worse = (require_answer([_content(answers[score])]) for score in (max(answers), min(answers)))
    return _preferred(require_open_prompt(prompt), better, worse)


def _content(value: Any) -> Message:
    """A turn of Gemini's: a role and parts with texts."""
    if not isinstance(value, dict) or not isinstance(value.get("parts"), list):
        raise RowRejected("a turn without parts")
    texts = [part.get("text") for part in value["parts"] if isinstance(part, dict)]
    if not all(isinstance(text, str) for text in texts):
        raise RowRejected("a turn holds something that is not text")
    return as_messages({"role": value.get("role", "user"), "content": "".join(map(str, texts))}, "turn")[0]


def _shp(row: Raw) -> Fields:
    first, second = _said(row["human_ref_A"]), _said(row["human_ref_B"])
    better, worse = (first, second) if str(row["labels"]).strip() in ("1", "True") else (second, first)
    return _preferred(_asked(row["history"]), better, worse)


def _summaries(row: Raw) -> Fields:
    info, summaries, choice = _parsed(row["info"]), _parsed(row["summaries"]), row["choice"]
    texts = [one.get("text") for one in summaries if isinstance(one, dict)] if isinstance(summaries, list) else []
    if not isinstance(info, dict) or len(texts) != 2 or str(choice) not in ("0", "1"):
        raise RowRejected("not two summaries and a choice")
    post = as_text(info.get("post") or info.get("article"), "prompt")
    better = int(choice)
    return _preferred([user(post)], _said(texts[better]), _said(texts[1 - better]))


def _strengths(row: Raw) -> Fields:
    """HelpSteer: a strength below 0 prefers the first answer."""
    try:
        strength = float(row["preference_strength"])
    except (TypeError, ValueError) as error:
        raise RowRejected("preference_strength is not a number") from error
    first, second = _said(row["response_1"]), _said(row["response_2"])
    if not strength:
        raise RowRejected(TIE)
    prompt = row["prompt"]
    turns = (
        require_open_prompt(as_messages(_parsed(prompt), "prompt"))
        if isinstance(_parsed(prompt), list)
        else _asked(prompt)
    )
    return _preferred(turns, *((first, second) if strength < 0 else (second, first)))


def _ranked(question: str, answers: str, text: str, by: str, sign: int) -> Callable[[Raw], Fields]:
    """Several answers with numbers: the best against the worst."""

    def made(row: Raw) -> Fields:
        ranked = [
            (sign * float(one[by]), place, one.get(text))
            for place, one in enumerate(_as_list(_parsed(row[answers])))
            if isinstance(one, dict) and isinstance(one.get(by), int | float)
        ]
        if len(ranked) < 2 or min(ranked)[0] == max(ranked)[0]:
            raise RowRejected(TIE)
        best, worst = max(ranked, key=lambda one: (one[0], -one[1])), min(ranked, key=lambda one: (one[0], one[1]))
        return _preferred(_asked(row[question]), _said(best[2]), _said(worst[2]))

    return made


def _holds(column: str, *keys: str) -> Callable[[Raw], bool]:
    def fits(row: Raw) -> bool:
        value = _parsed(row[column])
        return (
            isinstance(value, list)
            and bool(value)
            and all(isinstance(one, dict) and one.keys() >= set(keys) for one in value)
        )

    return fits


def _steps(row: Raw) -> Fields:
    """A solution step by step, each judged: desirable where every step is right."""
    steps, labels = _parsed(row["completions"]), _parsed(row["labels"])
    if not isinstance(steps, list) or not isinstance(labels, list) or not steps or len(steps) != len(labels):
        raise RowRejected("not one label for each step")
    text = "\n".join(as_text(step, "step").strip("\n") for step in steps)
    return {"prompt": _asked(row["prompt"]), "completion": [assistant(text)], "label": all(map(bool, labels))}


def _is_stepwise(row: Raw) -> bool:
    steps, labels = _parsed(row["completions"]), _parsed(row["labels"])
    texts = isinstance(steps, list) and all(isinstance(step, str) for step in steps)
    return texts and isinstance(labels, list) and len(labels) == len(steps)


_BATTLE = ("conversation_a", "conversation_b", "winner")
_OUTCOMES = ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b")
_BEST = "the best of them is preferred to the worst"
LAYOUTS: tuple[Layout, ...] = (
    Layout("arena", "preference", _BATTLE, "battles of an arena: the winner's conversation is preferred", _arena),
    Layout("arena-columns", "preference", _OUTCOMES, "battles of an arena, a column for each outcome", _arena_columns),
    Layout("openai-preference", "preference", ("input", "preferred_output", "non_preferred_output"),
           "preferences as OpenAI and Together have them", _openai),
    Layout("swift", "preference", ("messages", "rejected_response"),
           "conversations with a rejected last answer (ms-swift)", _swift),
    Layout("gemini", "preference", ("contents", "completions"),
           "contents with two scored completions (Gemini)", _gemini, _holds("completions", "completion", "score")),
    Layout("shp", "preference", ("history", "human_ref_A", "human_ref_B", "labels"),
           "two answers of people, and which got more votes (SHP)", _shp),
    Layout("summaries", "preference", ("info", "summaries", "choice"),
           "two summaries of a post and a choice (summarize from feedback)", _summaries),
    Layout("strengths", "preference", ("prompt", "response_1", "response_2", "preference_strength"),
           "two answers and a strength from -3 to 3 (HelpSteer); 0 is a tie and not used", _strengths),
    Layout("nectar", "preference", ("prompt", "answers"), f"answers with ranks (Nectar): {_BEST}",
           _ranked("prompt", "answers", "answer", "rank", -1), _holds("answers", "answer", "rank")),
    Layout("ultrafeedback", "preference", ("instruction", "completions"), f"scored answers (UltraFeedback): {_BEST}",
           _ranked("instruction", "completions", "response", "overall_score", 1),
           _holds("completions", "response", "overall_score")),
    Layout("steps", "labelled", ("prompt", "completions", "labels"),
           "solutions whose steps are judged: desirable where every step is right", _steps, _is_stepwise),
)  # fmt: skip
