"""The line below a panel: its axis, the ends of what is shown, and what happened where.

Owns the marks of events. Invariants: of two events in one place the graver one is drawn; a value that is no finite
number is always marked.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.plot_canvas import BAD, LABEL
from workbench.plot_rows import PlotRow
from workbench.plot_scene import Scene

_EVENTS = {"checkpoint": "┴", "resumed": "▲", "knob": "◊", "alarm": "!"}
_RANK = "─┴▲◊!"
"""Marks of events on the axis: of two in one place the later one here is drawn."""


def bottom_row(scene: Scene, width: int, breaks: Sequence[int], *, plain: bool) -> PlotRow:
    """`width` cells behind the gutter; `breaks` counts the values that are no finite number, two columns to a cell."""
    letters, tones = ["─"] * width, bytearray([LABEL]) * width
    for event in scene.events:
        if scene.first_step <= event.step <= scene.last_step and event.kind in _EVENTS:
            place = scene.place(event.step, 2 * width) >> 1
            letters[place] = max(letters[place], _EVENTS[event.kind], key=_RANK.index)
            if letters[place] == _EVENTS["alarm"]:
                tones[place] = BAD
    free = range(width)
    end = f" {scene.x.words(scene.last_step)}"
    begin = f"{scene.x.words(scene.first_step)} " if scene.first_step else ""
    if len(begin) + len(end) < width:
        letters[: len(begin)] = begin
        letters[width - len(end) :] = end
        free = range(len(begin), width - len(end) + 1)
    for x, broken in enumerate(breaks):
        if broken:
            letters[x >> 1], tones[x >> 1] = "X" if plain else "×", BAD
    if scene.cross is not None and scene.first_step <= scene.cross <= scene.last_step:
        place = scene.place(scene.cross, 2 * width) >> 1
        if place in free:  # the ends of the axis stay to be read
            letters[place] = "┼"
    return PlotRow(f"{scene.x.label:>6}└" + "".join(letters), bytes([LABEL]) * 7 + bytes(tones))
