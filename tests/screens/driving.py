"""Driving the real app in a test: keys in, the screen as text out.

A script is an async function `(app, pilot)`. Tests wait for a named condition with `until`, never for a time. Goldens
are texts of whole screens; they are written anew with UPDATE_GOLDENS=1 and then read by a person.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from textual._context import visible_screen_stack
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from workbench.workspace import Workspace

GOLDENS = Path(__file__).parent / "goldens"
SIZE, WIDE = (80, 24), (160, 48)
PATIENCE_S = 40.0
"""Spent only where a test fails; a machine that does much else at the same time must not be taken for that."""
Script = Callable[[WorkbenchApp, Pilot[int]], Awaitable[None]]


def drive(
    script: Script,
    workspace: Workspace,
    *,
    size: tuple[int, int] = SIZE,
    station: str = "home",
    subject: str = "",
    **options: Any,
) -> WorkbenchApp:
    """Run `script` in the app on `workspace`; returns the app when it has ended."""
    options.setdefault("ascii_only", False)
    app = WorkbenchApp(workspace, station=station, subject=subject, **options)

    async def run() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(asyncio.wait_for(run(), 3 * PATIENCE_S))
    return app


def burst(app: WorkbenchApp, *keys: str) -> None:
    """All of them are there before the first one is carried out."""
    for key in keys:
        app.simulate_key(key)


async def until(
    pilot: Pilot[int], condition: Callable[[], bool], what: str = "", patience_s: float = PATIENCE_S
) -> None:
    """Wait until `condition` holds; AssertionError with the screen where it does not come."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience_s
    while True:
        try:
            if condition():
                return
        except (LookupError, AttributeError, ValueError):
            pass  # a widget that is not there yet
        if loop.time() > end:
            raise AssertionError(f"never true: {what or condition}\n" + text_of(pilot.app))
        await pilot.pause(0.01)


def text_of(app: Any) -> str:
    """The screen as lines of text, without the blanks at their ends."""
    # What shines through a modal that the app itself has not drawn yet is drawn here, and kept.
    visible_screen_stack.set(app._background_screens)
    strips = app.screen._compositor.render_strips(app.size)
    return "\n".join(strip.text.rstrip() for strip in strips)


async def sees(pilot: Pilot[int], words: str) -> None:
    """Wait until `words` are on the screen."""
    await until(pilot, lambda: words in text_of(pilot.app), f"{words!r} on the screen")


def steady(text: str, workspace: Workspace) -> str:
    """`text` with what differs from machine to machine replaced by marks of the same length where it can be."""
    place = f"{socket.gethostname()}:{workspace.root}"
    text = re.sub(r" *" + re.escape(place), " HOST:WORKSPACE", text)
    text = re.sub(r" +…\S+$", " HOST:WORKSPACE", text, count=1, flags=re.MULTILINE)
    text = text.replace(str(workspace.root), "WORKSPACE").replace(socket.gethostname(), "HOST")
    text = re.sub(r"\b\d{4}-\d\d-\d\d\b", "YYYY-MM-DD", text)
    text = re.sub(r"\b\d\d:\d\d(:\d\d)?\b", lambda found: re.sub(r"\d", "0", found[0]), text)
    return re.sub(r"\b\d{4}-([a-z]+)-([\w.-]+)-[0-9a-z]{3}\b", r"MMDD-\1-\2-xxx", text)


async def check_golden(name: str, pilot: Pilot[int]) -> None:
    """Wait until the screen is goldens/NAME.WxH.txt: what a thread still reads may come a moment later."""
    app = cast(WorkbenchApp, pilot.app)
    path = GOLDENS / f"{name}.{app.size.width}x{app.size.height}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        await pilot.pause(1.0)
        path.write_text(steady(text_of(app), app.workspace) + "\n", "utf-8")
    assert path.exists(), f"{path.name} is missing; write it with UPDATE_GOLDENS=1 and read it"
    golden = path.read_text("utf-8")
    await until(pilot, lambda: steady(text_of(app), app.workspace) + "\n" == golden, path.name)
