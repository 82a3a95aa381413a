"""Dialogues written as one text, and pairs whose prompt stands inside both answers.

Owns two rules. HH-RLHF: a turn begins only at "\\n\\nHuman:" or "\\n\\nAssistant:"; the prompt is every turn that both
dialogues share, and what is left of each must be exactly one assistant turn. Shared beginning: the prompt is the
longest common beginning, cut back to a word boundary. Refuses to know about files and columns.
"""

from __future__ import annotations

import re

from workbench.canonical_rows import Message, RowRejected, require_answer, require_open_prompt

_TURN = re.compile(r"\n\n(Human|Assistant):")
_STRAY_MARKER = re.compile(r"(?:^|\s)(?:Human|Assistant):")


def is_hh_dialogue(text: str) -> bool:
    """Whether a text is an HH-RLHF dialogue: it begins with a human turn and holds an assistant turn."""
    start = text[:64].lstrip()
    return start.startswith("Human:") and "\n\nAssistant:" in text


def hh_turns(text: str) -> list[Message]:
    """The turns of an HH-RLHF dialogue; the white space around a turn is not part of it.

    Turns of the same speaker that follow each other are one turn, because most chat templates refuse them otherwise.
    The last turn may be empty: whether that matters is for the caller to say.
    """
    parts = _TURN.split("\n\n" + text.lstrip())
    if parts[0].strip():
        raise RowRejected("not a dialogue", 'the text does not begin with "Human:" or "Assistant:"')
    turns: list[Message] = []
    for speaker, content in zip(parts[1::2], parts[2::2], strict=True):
        turns.append({"role": "user" if speaker == "Human" else "assistant", "content": content.strip()})
    return turns


def split_hh_pair(chosen: str, rejected: str) -> tuple[list[Message], list[Message], list[Message]]:
    """(prompt, chosen answer, rejected answer) of two HH-RLHF dialogues; RowRejected says why not."""
    first, second = hh_turns(chosen), hh_turns(rejected)
    if first == second:
        raise RowRejected("chosen equals rejected")
    shared = _shared_turns(first, second)
    prompt, answers = first[:shared], (first[shared:], second[shared:])
    if any(len(answer) != 1 or answer[0]["role"] != "assistant" for answer in answers):
        # One dialogue may be the other and more: then the shorter one has no answer of its own.
        raise RowRejected("the dialogues differ before the last answer")
    if not prompt:
        raise RowRejected("no prompt", "the dialogues share no turn")
    if any(not answer[0]["content"] for answer in answers):
        raise RowRejected("empty answer")
    if any(_STRAY_MARKER.search(answer[0]["content"]) for answer in answers):
        raise RowRejected("speaker marker inside an answer", 'an answer holds "Human:" or "Assistant:" as text')
    if any(not turn["content"] for turn in prompt):
        raise RowRejected("empty turn")
    return require_open_prompt(merge_same_speaker(prompt)), answers[0], answers[1]


def merge_same_speaker(turns: list[Message]) -> list[Message]:
    """Turns of one speaker that follow each other, joined by a blank line."""
    merged: list[Message] = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = {"role": turn["role"], "content": merged[-1]["content"] + "\n\n" + turn["content"]}
        else:
            merged.append(turn)
    return merged


def split_shared_turns(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """(prompt, chosen answer, rejected answer) where both conversations begin with the prompt."""
    if chosen == rejected:
        raise RowRejected("chosen equals rejected")
    shared = _shared_turns(chosen, rejected)
    if shared == 0:
        raise RowRejected("no prompt", "chosen and rejected share no beginning")
    if shared in (len(chosen), len(rejected)):
        raise RowRejected("one answer is only the beginning of the other")
    return require_open_prompt(chosen[:shared]), require_answer(chosen[shared:]), require_answer(rejected[shared:])


def _shared_turns(first: list[Message], second: list[Message]) -> int:
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    return shared


def split_shared_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """(prompt, chosen answer, rejected answer) where both texts begin with the prompt.

    The common beginning is cut back to just after its last white space, so that no word is torn.
    """
    if chosen == rejected:
        raise RowRejected("chosen equals rejected")
    shared = next(
        (place for place, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other),
        min(len(chosen), len(rejected)),
    )
    while shared and not chosen[shared - 1].isspace():
        shared -= 1
    prompt, answers = chosen[:shared], (chosen[shared:], rejected[shared:])
    if not prompt.strip():
        raise RowRejected("no prompt", "chosen and rejected share no beginning")
    if not all(answer.strip() for answer in answers):
        raise RowRejected("empty answer")
    return prompt.strip(), answers[0].strip(), answers[1].strip()
