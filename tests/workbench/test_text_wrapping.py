"""Wrapping, cutting and fitting by cells: nothing is too wide, nothing is unsafe, nothing that is seen is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.run.safe_text import safe
from tests.any_text import ANY_TEXT
from workbench.text_wrapping import cells, cut, fit, wrap


class TestWrapping:
    @given(ANY_TEXT, st.integers(2, 30))
    def test_no_line_is_too_wide_and_nothing_seen_is_lost(self, text: str, width: int) -> None:
        lines = wrap(text, width)
        assert all(cell_len(line) <= width for line in lines), lines
        assert "".join("".join(lines).split()) == "".join(safe(text, newlines=True).split())

    @given(ANY_TEXT, st.integers(0, 30))
    def test_a_cut_text_fits_on_one_line(self, text: str, width: int) -> None:
        line = cut(text, width)
        assert cell_len(line) <= width
        assert safe(line) == line
        if cell_len(safe(text)) <= width:
            assert line == safe(text)

    @given(ANY_TEXT, st.integers(0, 30))
    def test_a_fitted_text_is_exactly_as_wide_as_its_column(self, text: str, width: int) -> None:
        assert cell_len(fit(safe(text), width)) == width

    @pytest.mark.parametrize("text", ["x" * 10**6, " " * 10**6, "漢" * 10**6, "ab " * 10**6, "x" + " " * 10**6 + "y"])
    def test_a_megabyte_is_laid_out_in_one_pass(self, text: str) -> None:
        """Quadratic work would outlast every patience, so the length of the text is the test."""
        assert len(wrap(text, 80)) > 1000 or not text.strip() or "  " in text

    @given(ANY_TEXT)
    def test_cells_are_counted_as_the_screens_draw_them(self, text: str) -> None:
        assert cells(safe(text)) == cell_len(safe(text))
