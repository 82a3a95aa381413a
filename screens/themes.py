"""The colours: a dark theme, a light one, one that colour-blind people can read, and none at all.

Owns the names of themes, and the filter for a terminal on which colour is not wanted (NO_COLOR). No state is told by
colour alone: words and marks say it, colour repeats it.
The colour-blind theme uses the palette of Okabe and Ito (2008): blue for good, vermilion for bad.
"""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

DEFAULT = "workbench-dark"
_DARK = {"footer-key-foreground": "#e6b450", "block-cursor-text-style": "none"}
_LIGHT = {"footer-key-foreground": "#8a5a00", "block-cursor-text-style": "none"}

THEMES: dict[str, Theme] = {
    theme.name: theme
    for theme in (
        Theme(
            name=DEFAULT,
            primary="#7aa2f7",
            secondary="#9d7cd8",
            accent="#e6b450",
            success="#8fbf6f",
            warning="#e0af68",
            error="#f7768e",
            foreground="#d5d9e0",
            background="#15181e",
            surface="#1c2027",
            panel="#262b34",
            dark=True,
            variables=_DARK,
        ),
        Theme(
            name="workbench-light",
            primary="#2a5db0",
            secondary="#6b4ea0",
            accent="#8a5a00",
            success="#2f6f2f",
            warning="#8a5a00",
            error="#b3261e",
            foreground="#22262d",
            background="#fbfbf9",
            surface="#f2f2ee",
            panel="#e4e4de",
            dark=False,
            variables=_LIGHT,
        ),
        Theme(
            name="workbench-colour-blind",
            primary="#56b4e9",
            secondary="#cc79a7",
            accent="#f0e442",
            success="#56b4e9",
            warning="#e69f00",
            error="#d55e00",
            foreground="#e0e0e0",
            background="#121212",
            surface="#1b1b1b",
            panel="#2a2a2a",
            dark=True,
            variables=_DARK,
        ),
    )
}


class WithoutColour(LineFilter):
    """Takes every colour off what is drawn and leaves its weight: bold, reverse, underlined.

    Textual's own filter for NO_COLOR writes shades of grey.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.style is None else Segment(segment.text, _uncoloured(segment.style), segment.control)
            for segment in segments
        ]


@lru_cache(4096)
def _uncoloured(style: Style) -> Style:
    """Not `Style.without_color`, which forgets what a click means."""
    return Style(
        bold=style.bold, dim=style.dim, italic=style.italic, underline=style.underline, strike=style.strike,
        reverse=style.reverse, link=style.link, meta=style.meta,
    )  # fmt: skip
