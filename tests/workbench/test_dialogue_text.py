"""HH-RLHF dialogues and shared beginnings: what is the prompt, and which dirt is refused."""

from __future__ import annotations

import pytest

from workbench.canonical_rows import RowRejected
from workbench.dialogue_text import split_hh_pair, split_shared_text, split_shared_turns

ASK = "\n\nHuman: one?\n\nAssistant: first.\n\nHuman: two?\n\nAssistant:"


def test_the_prompt_is_every_turn_both_share() -> None:
    prompt, chosen, rejected = split_hh_pair(ASK + " yes", ASK + " no")
    assert [turn["content"] for turn in prompt] == ["one?", "first.", "two?"]
    assert [turn["role"] for turn in prompt] == ["user", "assistant", "user"]
    assert (chosen, rejected) == (
        [{"role": "assistant", "content": "yes"}],
        [{"role": "assistant", "content": "no"}],
    )


def test_an_answer_may_hold_paragraphs_and_the_prompt_a_stray_marker() -> None:
    start = "\n\nHuman: he said Human: hi\n\nAssistant:"
    prompt, chosen, _ = split_hh_pair(start + " a\n\nb", start + " c")
    assert prompt[0]["content"] == "he said Human: hi"
    assert chosen[0]["content"] == "a\n\nb"


def test_turns_of_one_speaker_in_the_prompt_are_joined() -> None:
    start = "\n\nHuman: a\n\nHuman: b\n\nAssistant:"
    assert split_hh_pair(start + " x", start + " y")[0] == [{"role": "user", "content": "a\n\nb"}]


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (ASK + " same", ASK + " same ", "chosen equals rejected"),
        (ASK + "", ASK + " x", "empty answer"),
        (ASK + " x", ASK + "  \n", "empty answer"),
        (ASK + " sure. Human: and then?", ASK + " x", "speaker marker inside an answer"),
        (ASK + " x", ASK + " x\n\nHuman: more\n\nAssistant: y", "the dialogues differ before the last answer"),
        ("\n\nHuman: a\n\nAssistant: x", "\n\nHuman: b\n\nAssistant: y", "the dialogues differ before the last answer"),
        ("\n\nHuman: \n\nAssistant: x", "\n\nHuman: \n\nAssistant: y", "empty turn"),
        ("\n\nAssistant: x", "\n\nAssistant: y", "no prompt"),
        ("no markers", "none here", "not a dialogue"),
    ],
)
def test_dirt_is_refused_for_a_stated_reason(chosen: str, rejected: str, reason: str) -> None:
    with pytest.raises(RowRejected) as caught:
        split_hh_pair(chosen, rejected)
    assert caught.value.reason == reason


def test_a_shared_text_is_cut_at_a_word() -> None:
    assert split_shared_text("Is it so? Yes, sir", "Is it so? Yesterday") == ("Is it so?", "Yes, sir", "Yesterday")
    with pytest.raises(RowRejected, match="no prompt"):
        split_shared_text("abc", "abd")


def test_shared_turns() -> None:
    user, good, bad = (
        {"role": role, "content": c} for role, c in (("user", "q"), ("assistant", "g"), ("assistant", "b"))
    )
    assert split_shared_turns([user, good], [user, bad]) == ([user], [good], [bad])
    with pytest.raises(RowRejected, match="only the beginning"):
        split_shared_turns([user, good], [user])
