"""Strangers' text cannot do anything to a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.run.safe_text import safe

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=60)
HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp", "Co"}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain text, ünïcödé, 漢字, 😀", "plain text, ünïcödé, 漢字, 😀"),
        ("\x1b]52;c;QQ==\x07", "␛]52;c;QQ==␇"),
        ("\x1b[2J", "␛[2J"),
        ("a\x9b31mb", "a<U+009B>31mb"),
        ("a\x7f\x00", "a␡␀"),
        ("abc\u202edcba", "abc<U+202E>dcba"),
        ("zero\u200bwidth\ufeff", "zero<U+200B>width<U+FEFF>"),
        ("tag\U000e0041", "tag<U+E0041>"),
        ("half\ud83d", "half<U+D83D>"),
        ("one\r\ntwo\tthree", "one␍␊two␉three"),
        ("line\u2028end", "line<U+2028>end"),
        ("", ""),
    ],
)
def test_what_is_unseen_becomes_seen(raw: str, shown: str) -> None:
    assert safe(raw) == shown


def test_with_newlines_lines_and_tabs_stay_readable() -> None:
    assert safe("one\r\ntwo\n\tthree\rfour\x1b[A", newlines=True) == "one\ntwo\n three␍four␛[A"


def test_a_long_text_is_cut_with_its_size() -> None:
    assert safe("x" * 1_000_000, limit=5) == "xxxxx… (1.0 MB)"
    assert safe("é" * 10, limit=3) == "ééé… (20 bytes)"
    assert safe("\x1b" * 2000, limit=1) == "␛… (2.0 kB)"
    assert safe("12345", limit=5) == "12345"
    assert safe("a\nbcd", limit=3, newlines=True) == "a\nb… (5 bytes)"


@given(ANY_TEXT)
def test_nothing_harmful_comes_out_and_nothing_is_dropped(text: str) -> None:
    shown = safe(text)
    assert not {unicodedata.category(c) for c in shown} & HARMFUL
    shown.encode("utf-8")
    assert len(shown) >= len(text)
    assert safe(shown) == shown


@given(ANY_TEXT)
def test_in_a_block_only_line_ends_are_left(text: str) -> None:
    shown = safe(text, newlines=True)
    assert not {unicodedata.category(c) for c in shown.replace("\n", "")} & HARMFUL
    shown.encode("utf-8")


def test_every_control_and_format_character_is_shown() -> None:
    unseen = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) in HARMFUL]
    unchanged = [f"U+{ord(c):04X}" for c in unseen if safe(c) == c]
    assert unchanged == []
