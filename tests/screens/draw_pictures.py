"""Draws the README's pictures: each screen as SVG, from a workspace that `workbench demo --headless` made.

    workbench demo --headless --workspace FOLDER
    python -m tests.screens.draw_pictures FOLDER

They are written to screens/pictures/. The labeling picture is of the demo's pairs under a new annotator's name; nothing
is judged. Several runs in the same panels are the recorded ones. Run it again when a screen changes.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sample_data import ROOT
from screens.app import WorkbenchApp
from workbench.run_list import all_runs
from workbench.user_settings import UserSettings
from workbench.workspace import Workspace, init, open_workspace

PICTURES = Path(__file__).resolve().parents[2] / "screens" / "pictures"
OVERLAID = ("1130-grpo-grpo-rec", "1130-rloo-rloo-rec", "1130-grpo-reward-hacking-rec")
SETTLED_S = 2.5
"""Screens read their files in threads; a picture is taken when they have had time for it."""


@dataclass(frozen=True)
class Picture:
    """One screen to draw."""

    name: str
    station: str
    subject: str = ""
    keys: tuple[str, ...] = ()
    size: tuple[int, int] = (100, 30)
    recorded: bool = False
    """Of the recorded runs, in a workspace of their own."""


def pictures_of(workspace: Workspace) -> list[Picture]:
    """What the README shows."""
    latest = {run.method: run.id for run in all_runs(workspace)}
    return [
        Picture("home", "home"),
        Picture("datasets", "datasets", size=(120, 30)),
        Picture("inspect", "inspect", "answers", size=(120, 30)),
        Picture("row", "inspect", "answers", keys=("enter",)),
        Picture("tokens", "inspect", "answers", keys=("enter", "m")),
        Picture("profile", "profile", "answers"),
        Picture("lint", "lint", "demonstrations", keys=("m", "end", *" max_length=40", "enter"), size=(120, 30)),
        Picture("sql", "sql", "answers", keys=(*"SELECT verdict, count(*) FROM judgments GROUP BY 1", "enter")),
        Picture("pairs", "pairs"),
        Picture("label", "label", "answers"),
        Picture("label-diff", "label", "answers", keys=("1", "d")),
        Picture("launch", "launch", "preferences", size=(120, 34)),
        Picture("runs", "runs", size=(120, 30)),
        Picture("curves", "curves", latest.get("dpo", ""), size=(120, 34)),
        Picture("curves-samples", "curves", latest.get("ppo", ""), keys=("s", "n", "n"), size=(120, 34)),
        Picture("curves-several", "several", ",".join(OVERLAID), keys=("left",) * 9, size=(120, 34), recorded=True),
        Picture("compare", "compare", latest.get("dpo", ""), size=(120, 30)),
        Picture("palette", "home", keys=("colon", *"dpo")),
    ]


class PicturedApp(WorkbenchApp):
    """The app on a machine whose name may be printed."""

    @property
    def place(self) -> str:
        return "gpu-box:~/workshop"


async def draw(workspace: Workspace, picture: Picture, folder: Path) -> Path:
    """Draw one screen."""
    app = PicturedApp(
        workspace,
        settings=UserSettings(annotator="you"),
        station=picture.station,
        subject=picture.subject,
        ascii_only=False,
    )
    async with app.run_test(size=picture.size) as pilot:
        await pilot.pause(SETTLED_S)
        await pilot.press(*picture.keys)
        await pilot.pause(SETTLED_S / 2)
        drawn = app.export_screenshot(title="workbench", simplify=True)
    path = folder / f"{picture.name}.svg"
    path.write_text(without_fonts(drawn), "utf-8")
    return path


def without_fonts(svg: str) -> str:
    """Rich names fonts on a server; a picture in a README must need nothing from elsewhere."""
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "DejaVu Sans Mono")


def main(argv: Sequence[str] | None = None) -> None:
    """Draw all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--to", type=Path, default=PICTURES)
    args = parser.parse_args(argv)
    workspace = open_workspace(args.workspace)
    args.to.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        recorded = init(Path(folder) / "recorded")
        for name in OVERLAID:
            shutil.copytree(ROOT / "recorded_runs" / name, recorded.runs / name)
        for picture in pictures_of(workspace):
            if not args.names or picture.name in args.names:
                print(asyncio.run(draw(recorded if picture.recorded else workspace, picture, args.to)))


if __name__ == "__main__":
    main()
