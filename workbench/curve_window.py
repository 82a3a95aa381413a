"""The part of an x axis that is looked at: zooming, moving, following the newest.

Owns the arithmetic. Invariant: a window lies inside the whole, and is never shorter than LEAST_SPAN where the whole is
not. Places are whole numbers, in whatever unit the axis has.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_SPAN = 8


@dataclass(frozen=True)
class Window:
    """The part of an axis that is shown; whole where `first` and `last` are those of the whole."""

    first: int
    last: int

    @property
    def span(self) -> int:
        return max(1, self.last - self.first)


def zoomed(shown: Window, whole: Window, factor: float, at: int | None = None) -> Window | None:
    """A window `factor` times as long that keeps the place `at` where it is, else its right end; None: the whole."""
    span = max(min(LEAST_SPAN, whole.span), round(shown.span * factor))
    if span >= whole.span:
        return None
    if at is None or not shown.first <= at <= shown.last:
        at = shown.last
    first = at - round((at - shown.first) / shown.span * span)
    return _inside(first, span, whole)


def panned(shown: Window, whole: Window, share: float) -> Window:
    """The window moved by a share of its length, as far as the whole goes."""
    return _inside(shown.first + round(share * shown.span), shown.span, whole)


def followed(shown: Window, whole: Window, newest: int) -> Window:
    """The window with the newest place in it; it moves by a quarter of its length, not at every step."""
    if shown.first <= newest <= shown.last:
        return shown
    return _inside(newest - shown.span + max(1, shown.span // 4), shown.span, whole)


def _inside(first: int, span: int, whole: Window) -> Window:
    first = max(whole.first, min(first, whole.last - span))
    return Window(first, first + span)
