"""Lines of an answer: as plain text is wrapped, styled by Markdown, every character in its place, and never slow."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.answer_lines import pieces_of, styled
from workbench.text_wrapping import cells, wrap

PARTS = ["a", "bb", "ccc ", " ", "  ", "\n", "日本", "é", "x" * 30, "\t", ".", "\x1b"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(PARTS), max_size=60), st.integers(1, 40))
def test_a_text_without_marks_is_wrapped_as_everywhere(parts: list[str], width: int) -> None:
    made = styled("".join(parts), width)
    lines = [made.line_text(place) for place in range(len(made.lines))]
    assert lines == wrap("".join(parts), width)
    for place, line in enumerate(lines):
        assert "".join(text for text, _ in pieces_of(made, place, [(0, 3), (5, 9)])) == line


@settings(max_examples=60)
@given(st.text("ab *_`#>-1.~\n日", max_size=120), st.integers(3, 30))
def test_whatever_is_marked_no_line_is_too_wide_and_no_word_is_lost(text: str, width: int) -> None:
    made = styled(text, width)
    lines = [made.line_text(place) for place in range(len(made.lines))]
    assert all(cells(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(made.text.split())
    spans = [(span.begin, span.end) for span in made.spans]
    assert spans == sorted(spans)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))


def pieces(text: str, width: int = 40) -> list[list[tuple[str, str]]]:
    made = styled(text, width)
    return [pieces_of(made, place) for place in range(len(made.lines))]


def test_what_markdown_says() -> None:
    assert pieces("## Brakes") == [[("## Brakes", "heading")]]
    assert pieces("a **b c** `d` *e* f_g_h 2*3*4") == [
        [("a ", ""), ("**b c**", "strong"), (" ", ""), ("`d`", "code"), (" ", ""), ("*e*", "emphasis"),
         (" f_g_h 2*3*4", "")]
    ]  # fmt: skip


def test_code_is_cut_where_the_line_is_full_and_keeps_its_blanks() -> None:
    found = pieces("~~~\n  if x:  # long\n~~~\nafter", 10)
    code = ["~~~", "  if x:  #", " long", "~~~"]
    assert found == [*([(line, "code")] for line in code), [("after", "")]]


def test_an_item_hangs() -> None:
    made = styled("- one two three\n10. four five six", 12)
    lines = [made.line_text(place) for place in range(len(made.lines))]
    assert lines == ["- one two", "  three", "10. four", "    five six"]


@pytest.mark.parametrize("part", ["`", "*", "_a", "- ", "**a", "`a"])
def test_no_text_makes_it_slow(part: str) -> None:
    """Its cost per character is that of plain words, within a factor; time is the processor's."""
    assert _cost(part * (60_000 // len(part))) < 30 * _cost("word " * 12_000)


def _cost(text: str) -> float:
    began = time.process_time()
    styled(text, 38)
    return time.process_time() - began


def test_a_megabyte_is_cut_and_says_so() -> None:
    made = styled("x" * 1_000_000, 40, limit=5000)
    assert made.text.endswith("… (1.0 MB)")
