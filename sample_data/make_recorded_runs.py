"""Real runs of the sample model, one of each method and one for each alarm, cut to what a viewer reads.

Run: python -m sample_data.make_recorded_runs [NAME …] [--keep WORKSPACE]

What a recording is made of is its recipe in `recorded_runs/recipes/` and its line in `RECORDINGS`; it is trained by the
`workbench` command and by nothing else. Kept are run.toml, status.json, metrics, events, the newest samples and the end
of the log, below 200 kB together; examples and checkpoints are not. Names of this machine and places on it are
replaced.
Numbers depend on the machine in their last digits, and times do; what is told of a run (its alarm, its shape) does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sample_data import ROOT

FOLDER = ROOT / "recorded_runs"
RECIPES = FOLDER / "recipes"
MOST_BYTES = 200_000
SAMPLE_BYTES, LOG_BYTES = 60_000, 4_000
KEPT = ("run.toml", "status.json", "metrics.jsonl", "events.jsonl", "samples.jsonl", "engine.log")
PAIRS, FEW_PAIRS = 600, 80
CREATED = "1130"


@dataclass(frozen=True)
class Recording:
    """How one run is asked for, beside its recipe."""

    method: str
    data: str
    model: str = "run:sft"
    more: tuple[str, ...] = ()
    needs: tuple[str, ...] = field(default=())
    """Recordings whose checkpoints it is made over."""


_JUDGED = ("--reward-model", "run:reward")
_ON = ("sft", "reward")
RECORDINGS: dict[str, Recording] = {
    "sft": Recording("sft", "demonstrations", "sample"),
    "reward": Recording("reward", "pairs", needs=("sft",)),
    "dpo": Recording("dpo", "pairs", needs=("sft",)),
    **{method: Recording(method, "prompts", more=_JUDGED, needs=_ON) for method in ("ppo", "grpo", "rloo")},
    "kl": Recording("grpo", "prompts", more=_JUDGED, needs=_ON),
    "kl_runaway": Recording("grpo", "prompts", more=_JUDGED, needs=_ON),
    "clipping": Recording("ppo", "prompts", more=_JUDGED, needs=_ON),
    "value": Recording("ppo", "prompts", more=_JUDGED, needs=_ON),
    "flat_groups": Recording("grpo", "prompts", more=_JUDGED, needs=_ON),
    "cut_off": Recording("rloo", "prompts", more=_JUDGED, needs=_ON),
    "reward_hacking": Recording(
        "grpo", "prompts", more=("--reward", f"{RECIPES / 'likes_length.py'}:length"), needs=("sft",)
    ),
    "overfitting": Recording("reward", "turned-pairs", more=("--eval-share", "0.9"), needs=("sft",)),
    "displacement": Recording("dpo", "pairs", needs=("sft",)),
}
ALARMS = tuple(name for name in RECORDINGS if name not in ("sft", "reward", "dpo", "ppo", "grpo", "rloo"))


def run_id(name: str) -> str:
    """What a recording is called: its method stands in it, as in every run's ID."""
    return f"{CREATED}-{RECORDINGS[name].method}-{name.replace('_', '-')}-rec"


def wanted(names: list[str]) -> list[str]:
    """The recordings that are asked for, with those they are made over, in order."""
    chosen = set(names or RECORDINGS)
    chosen |= {need for name in chosen for need in RECORDINGS[name].needs}
    return [name for name in RECORDINGS if name in chosen]


class Studio:
    """A workspace in which recordings are trained by the `workbench` command."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._state = workspace.parent / "state"
        self.ids: dict[str, str] = {}

    def command(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """One command; what it wrote."""
        command = [sys.executable, "-m", "workbench", "--workspace", str(self.workspace), *arguments]
        environment = {**os.environ, "XDG_STATE_HOME": str(self._state)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in codes:
            sys.exit(f"workbench {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def furnish(self) -> None:
        """Make the workspace with its data."""
        if not (self.workspace / "workspace.toml").exists():
            init = [sys.executable, "-m", "workbench", "init", str(self.workspace)]
            subprocess.run(init, check=True, capture_output=True)
        preferences = [json.loads(line) for line in (ROOT / "data" / "preferences.jsonl").read_text().splitlines()]
        turned = [_turned(row) if place % 2 else row for place, row in enumerate(preferences[:FEW_PAIRS])]
        for name, rows in (("pairs", preferences[:PAIRS]), ("turned-pairs", turned)):
            path = self.workspace.parent / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            self._add(path, name)
        self._add(ROOT / "data" / "sft.jsonl", "demonstrations")
        self._add(ROOT / "data" / "prompts_train.jsonl", "prompts")

    def _add(self, path: Path, name: str) -> None:
        if not (self.workspace / "datasets" / name).exists():
            self.command("data", "add", str(path), "--name", name, "--copy")

    def train(self, name: str) -> None:
        """Train one recording to its end; a pause by its alarm (exit code 3) is an end, too."""
        recording = RECORDINGS[name]
        if "--reward" in recording.more:
            function = RECIPES / "likes_length.py"
            self.command(
                "rewards", "approve", str(function), "--sha256", hashlib.sha256(function.read_bytes()).hexdigest()
            )
        source = "--prompts" if recording.data == "prompts" else "--data"
        arguments = ["train", recording.method, "-f", str(RECIPES / f"{name}.toml"), source, recording.data]
        arguments += ["--model", self._named(recording.model), *map(self._named, recording.more)]
        self.ids[name] = self.command(*arguments, "--device", "cpu", "--name", name, "--wait", codes=(0, 3)).split()[-1]

    def find(self, name: str) -> bool:
        """Whether a recording was trained here before."""
        found = sorted(self.workspace.glob(f"runs/*-{RECORDINGS[name].method}-{name}-???"))
        if found:
            self.ids[name] = found[-1].name
        return bool(found)

    def cut(self, name: str, to: Path) -> int:
        """Copy what a viewer reads of a run, without what is of this machine; its bytes."""
        source = self.workspace / "runs" / self.ids[name]
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(parents=True)
        for file in KEPT:
            if (source / file).exists():
                (to / file).write_text(self._plain(_shortened(file, (source / file).read_text("utf-8", "replace"))))
        status = json.loads((to / "status.json").read_text())
        status.update(host="recorded", boot_id="", pid=0)
        (to / "status.json").write_text(json.dumps(status, indent=2) + "\n")
        size = sum(file.stat().st_size for file in to.iterdir())
        if size > MOST_BYTES:
            sys.exit(f"{to.name}: {size:,} bytes are more than {MOST_BYTES:,}: fewer steps, or shorter samples")
        return size

    def _named(self, text: str) -> str:
        found = re.fullmatch(r"run:(\w+)", text)
        return f"run:{self.ids[found[1]]}" if found else text

    def _plain(self, text: str) -> str:
        for name, found in self.ids.items():
            text = text.replace(found, run_id(name))
        places = {str(self.workspace): "workspace", str(ROOT): "sample_data", str(ROOT.parent): "."}
        places |= {str(self.workspace.parent): "studio", str(Path.home()): "~", os.uname().nodename: "recorded"}
        for place, shown in places.items():
            text = text.replace(place, shown) if len(place) > 3 else text
        return text


def _turned(row: dict[str, Any]) -> dict[str, Any]:
    """A pair with the wrong verdict."""
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def _shortened(file: str, text: str) -> str:
    """The newest lines of samples and of the log that fit; else everything."""
    most = {"samples.jsonl": SAMPLE_BYTES, "engine.log": LOG_BYTES}.get(file)
    if most is None or len(text) <= most:
        return text
    lines = text.splitlines(keepends=True)
    while sum(map(len, lines)) > most:
        lines.pop(0)
    return "".join(lines)


def main() -> None:
    """Train and cut the recordings that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of {', '.join(RECORDINGS)}; all without any")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the workspace there, and use what is in it")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in RECORDINGS]:
        parser.error(f"no recording {', '.join(unknown)}; there are {', '.join(RECORDINGS)}")
    with tempfile.TemporaryDirectory() as scratch:
        studio = Studio((args.keep.absolute() if args.keep else Path(scratch)) / "workspace")
        studio.workspace.parent.mkdir(parents=True, exist_ok=True)
        studio.furnish()
        for name in wanted(args.names):
            if not (args.keep and name not in args.names and studio.find(name)):
                studio.train(name)
            if not args.names or name in args.names:
                print(f"{run_id(name)}: {studio.cut(name, FOLDER / run_id(name)):,} bytes", flush=True)


if __name__ == "__main__":
    main()
