"""Texts for property tests: anything, and often what terminals and layouts stumble over."""

from __future__ import annotations

from hypothesis import strategies as st

ANY_TEXT = st.text(
    st.characters() | st.sampled_from("\x1b\x9b\u202e\u200b\ufe0f─▸✓⣿漢e\u0301👩\u200d👧🇩 \t\n[/]"), max_size=60
)
