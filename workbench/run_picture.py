"""Pictures of a run's panels, and its metrics as CSV, for reports and papers.

Owns the two picture formats and the table. Invariants: SVG needs nothing but this program; PNG is the same picture,
drawn by Pillow where it is installed (the extra `pictures`); numbers in CSV are exact, and a metric without a value at
a step leaves its cell empty; a file that exists is never overwritten.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from html import escape
from pathlib import Path
from typing import Any

from engine.run.safe_text import safe
from workbench.curve_panels import Trace
from workbench.curve_scenes import scenes_of
from workbench.curve_view import CurveView
from workbench.curve_words import state_words
from workbench.curves import Points, RunCurves
from workbench.errors import NameTaken, NotFound, UsageError, WorkbenchError, explain_os_errors, some_of
from workbench.overlay_view import OverlayView, trace_of_run
from workbench.panel_shapes import DASHES, MUTED, Filled, PanelShapes, Shape, Stroke, Words, colour_of
from workbench.plot_scene import Scene
from workbench.run_list import Run
from workbench.several_runs import SeveralRuns, what_differs
from workbench.text_wrapping import cut

PANEL = (480, 280)
"""Pixels of a panel."""
HEAD, HEAD_LINE, MOST_COLUMNS = 32, 19, 2
FORMATS = (".svg", ".png", ".csv")


def write_picture(
    runs: Sequence[Run], to: Path, panels: Sequence[str] = (), *, log: bool = False, scale: float = 2.0
) -> int:
    """Write panels as SVG or PNG, by the ending of `to`; how many. `panels` are titles or metrics, else all of them.

    Several runs are overlaid, with a line for each above the panels; the first is the baseline. `scale` is pixels of a
    PNG for each of the SVG's. Raises NotFound for a panel that there is not.
    """
    drawn = _of_one(runs[0], log) if len(runs) == 1 else _of_several(runs, log)
    scenes = _named(drawn.scenes, panels) if panels else drawn.scenes
    columns = min(MOST_COLUMNS, max(1, len(scenes)))
    width = columns * PANEL[0]
    head, above = _head(drawn.head, width)
    height = above + -(-len(scenes) // columns) * PANEL[1]
    shapes = head
    for place, scene in enumerate(scenes):
        x, y = place % columns * PANEL[0], above + place // columns * PANEL[1]
        shapes += PanelShapes(scene, drawn.metrics, x, y, *PANEL).all()
    make = {".svg": lambda: svg(shapes, width, height), ".png": lambda: png(shapes, width, height, scale)}
    _write(to, make[to.suffix.lower()]())
    return len(scenes)


@dataclass(frozen=True)
class _Drawn:
    """What a picture is made of."""

    head: Sequence[tuple[Trace | None, str]]
    """What stands above the panels: with the look of a curve, the run that has it."""
    scenes: list[Scene]
    metrics: Mapping[str, Points]


def _of_one(run: Run, log: bool) -> _Drawn:
    curves = RunCurves(run)
    while (glance := curves.look()).more:
        pass
    view = CurveView(curves)
    view.log = log
    state = state_words(glance.summary, glance.step)[2:]  # without its mark, which fonts lack
    return _Drawn([(None, f"{glance.summary.id}  {state}")], scenes_of(glance, curves, view), view.metrics)


def _of_several(runs: Sequence[Run], log: bool) -> _Drawn:
    seen = SeveralRuns(runs[0].workspace, ",".join(run.id for run in runs)).look()
    view = OverlayView()
    view.log = log
    view.take(seen)
    head: list[tuple[Trace | None, str]] = []
    for group in view.groups:
        place = group[0]
        seeds = f" as the mean of {len(group)} seeds" if len(group) > 1 else ""
        differs = what_differs(seen.comparison, group) if seen.comparison else ""
        words = f"{seen.runs[place].run.id}{seeds}{' (baseline)' if place == 0 else ''}  {differs}"
        head.append((trace_of_run("", seen.marks[place]), words))
    head += [(None, warning) for warning in (seen.comparison.warnings if seen.comparison else ())]
    scenes, curves = view.drawn()
    return _Drawn(head, scenes, curves)


def _head(lines: Sequence[tuple[Trace | None, str]], width: int) -> tuple[list[Shape], int]:
    """The lines above the panels, and the pixels that they take."""
    shapes: list[Shape] = []
    for place, (trace, text) in enumerate(lines):
        y, x = 21 + HEAD_LINE * place, 8
        if trace is not None:
            colour = colour_of(trace)
            shapes.append(Words(8, y, trace.letter, colour, bold=True))
            shapes.append(Stroke(((22, y - 4), (52, y - 4)), colour, 2.0, DASHES[trace.kind]))
            x = 60
        shapes.append(Words(x, y, safe(cut(text, (width - x) // 7)), MUTED))
    return shapes, HEAD + HEAD_LINE * (len(lines) - 1)


def write_csv(runs: Sequence[Run], to: Path, metrics: Sequence[str] = ()) -> int:
    """Write metrics by step as CSV; how many lines. `metrics` are names or patterns such as eval_*, else all.

    With several runs the first column is the run. Raises NotFound where no metric is meant.
    """
    lines = {run.id: run.metrics() for run in runs}
    known = dict.fromkeys(name for found in lines.values() for line in found for name in line.metrics)
    wanted = [name for name in known if not metrics or any(fnmatchcase(name, pattern) for pattern in metrics)]
    for pattern in metrics:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise NotFound(f"no metric {pattern!r} in {', '.join(lines)}. There are: {some_of(sorted(known), 40)}")
    out, written = io.StringIO(), 0
    table = csv.writer(out, lineterminator="\n")
    several = ["run"] if len(runs) > 1 else []
    table.writerow([*several, "step", "time", *wanted])
    for run_id, found in lines.items():
        for line in found:
            values = [line.metrics.get(name) for name in wanted]
            if any(value is not None for value in values):
                cells = ["" if value is None else repr(value) for value in values]
                table.writerow(
                    [*([run_id] if several else []), line.step, repr(line.time) if line.time else "", *cells]
                )
                written += 1
    _write(to, out.getvalue().encode())
    return written


def svg(shapes: Sequence[Shape], width: float, height: float) -> bytes:
    """The shapes as an SVG document."""
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">']
    parts.append(f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>')
    for shape in shapes:
        if isinstance(shape, Words):
            weight = ' font-weight="bold"' if shape.bold else ""
            place = f'x="{shape.x:.4g}" y="{shape.y:.4g}" font-size="{shape.size:g}" fill="{shape.colour}"'
            parts.append(f'<text {place} text-anchor="{shape.anchor}"{weight}>{escape(shape.text)}</text>')
            continue
        points = " ".join(f"{x:.5g},{y:.5g}" for x, y in shape.points)
        if isinstance(shape, Filled):
            parts.append(f'<polygon points="{points}" fill="{shape.colour}"/>')
        else:
            dash = f' stroke-dasharray="{" ".join(f"{d:g}" for d in shape.dash)}"' if shape.dash else ""
            look = f'fill="none" stroke="{shape.colour}" stroke-width="{shape.width:g}"{dash}'
            parts.append(f'<polyline points="{points}" {look}/>')
    return ("\n".join([*parts, "</svg>"]) + "\n").encode()


def png(shapes: Sequence[Shape], width: float, height: float, scale: float) -> bytes:
    """The shapes as a PNG. Raises WorkbenchError where Pillow is not installed."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise WorkbenchError(
            "a PNG needs Pillow, which is not installed: pip install 'workbench[pictures]'; or write an .svg, which "
            "needs nothing"
        ) from error
    image = Image.new("RGB", (round(width * scale), round(height * scale)), "#ffffff")
    draw = ImageDraw.Draw(image)
    fonts: dict[float, Any] = {}
    for shape in shapes:
        if isinstance(shape, Words):
            font = fonts.setdefault(shape.size, ImageFont.load_default(shape.size * scale))
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
            strokes = scale / 6 if shape.bold else 0
            at = (shape.x * scale, shape.y * scale)
            draw.text(at, shape.text, shape.colour, font, anchor, stroke_width=strokes, stroke_fill=shape.colour)
        elif isinstance(shape, Filled):
            draw.polygon([(x * scale, y * scale) for x, y in shape.points], fill=shape.colour)
        else:
            for part in dashed(shape):
                line = [(x * scale, y * scale) for x, y in part]
                draw.line(line, fill=shape.colour, width=max(1, round(shape.width * scale)), joint="curve")
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def dashed(stroke: Stroke) -> list[list[tuple[float, float]]]:
    """The parts of a line that are drawn; all of it where it has no dashes."""
    if not stroke.dash:
        return [list(stroke.points)]
    parts: list[list[tuple[float, float]]] = [[stroke.points[0]]]
    place, left = 0, stroke.dash[0]
    for (x0, y0), (x1, y1) in zip(stroke.points, stroke.points[1:], strict=False):
        length, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while length - done > left:
            done += left
            at = (x0 + (x1 - x0) * done / length, y0 + (y1 - y0) * done / length)
            if place % 2 == 0:
                parts[-1].append(at)
            else:
                parts.append([at])
            place += 1
            left = stroke.dash[place % len(stroke.dash)]
        left -= length - done
        if place % 2 == 0:
            parts[-1].append((x1, y1))
    return [part for part in parts if len(part) > 1]


def check_target(to: Path) -> None:
    """Raises UsageError where the ending of a file is none of ours, NameTaken where it exists."""
    if to.suffix.lower() not in FORMATS:
        raise UsageError(f"--to {to}: the ending says what is written: {', '.join(FORMATS)}")
    if os.path.lexists(to):
        raise NameTaken(f"{to} exists; nothing is overwritten. Name another file, or remove it first")


def _named(scenes: list[Scene], names: Sequence[str]) -> list[Scene]:
    found = []
    for name in names:
        meant = [scene for scene in scenes if name in (scene.panel.title, scene.panel.short_title, *_metrics(scene))]
        if not meant:
            raise NotFound(f"no panel {name!r}. There are: {some_of([scene.panel.title for scene in scenes], 40)}")
        found.append(meant[0])
    return found


def _metrics(scene: Scene) -> list[str]:
    """What a panel draws: of several runs each curve is called after its run's place and its metric."""
    return [trace.metric.partition("/")[2] if trace.letter else trace.metric for trace in scene.panel.traces]


def _write(to: Path, content: bytes) -> None:
    with explain_os_errors(f"writing {to.name}", to.parent), open(to, "xb") as stream:
        stream.write(content)
