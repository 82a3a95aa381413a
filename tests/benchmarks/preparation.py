"""How long a large set of chats takes to prepare, and in how much memory: `python -m tests.benchmarks.preparation`.

Synthetic chats of four turns, each with its thinking, under the published template of Qwen3 where trl is installed
(else under the model's own), are prepared as for a run: by `python -m engine.train RUN_DIR --prepare`, to a store that
is written and synced. `--rows 30000` makes fewer than the 300,000. Memory is that of the whole tree of processes, ten
times a second; a page that several share counts once (Pss). One line of JSON with the figures comes out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.data.example_store import MANIFEST
from engine.run.blobs import blobs_used_by
from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder
from sample_data import ROOT as SAMPLE_DATA

TURNS, ASKED, THOUGHT, ANSWERED = 4, 30, 30, 60
"""Turns of a chat, and the words of each question, thought and answer."""
POLL_S = 0.1


def main(argv: list[str] | None = None) -> int:
    """Make the chats, prepare them, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000, metavar="N")
    parser.add_argument("--tokenizer", default=str(SAMPLE_DATA / "model"), metavar="FOLDER", help="the sample model's")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="train.threads; 0: all cores")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        folder = _run(Path(place), args.rows, args.tokenizer, args.threads)
        print(json.dumps(_measured(folder, args.rows)))
    return 0


def _run(place: Path, rows: int, tokenizer: str, threads: int) -> RunFolder:
    """A run on that many chats, in a workspace of its own."""
    (place / "runs").mkdir()
    (place / "workspace.toml").write_text("schema = 1\n")
    layer: dict[str, dict[str, Any]] = {
        "model": {"path": tokenizer},
        "data": {"train_rows": rows, "eval": "", "max_length": 8192},
        "sft": {"train_on": "assistant"},
        "train": {"device": "cpu", "threads": threads},
        "probe": {"prompts": 0},
    }
    if (spec := find_spec("trl")) is not None and spec.origin is not None:
        layer["chat"] = {"template": str(Path(spec.origin).parent / "chat_templates" / "qwen3.jinja")}

    def fill(folder: RunFolder) -> None:
        with (folder.data / "train.jsonl").open("w") as file:
            file.writelines(json.dumps({"messages": chat}) + "\n" for chat in _chats(rows))

    return RunFolder.create(place / "runs" / "chats", to_toml(resolve("sft", [("benchmark", layer)]).config), fill)


def _chats(rows: int) -> Iterator[list[dict[str, str]]]:
    """Chats of words of this repository's README, drawn by a seed."""
    draw = random.Random(0)
    words = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8").split()

    def said(count: int) -> str:
        return " ".join(draw.choices(words, k=count))

    for _ in range(rows):
        chat = []
        for _ in range(TURNS):
            chat.append({"role": "user", "content": said(ASKED)})
            chat.append({"role": "assistant", "reasoning_content": said(THOUGHT), "content": said(ANSWERED)})
        yield chat


def _measured(folder: RunFolder, rows: int) -> dict[str, Any]:
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "engine.train", str(folder.path), "--prepare"])
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_memory, _tree(process.pid))))
        time.sleep(POLL_S)
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"the preparation ended with {process.returncode}; see above and {folder.status_path}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    store = folder.path.parent.parent / "blobs" / blobs_used_by(folder)["train"]
    manifest = json.loads((store / MANIFEST).read_bytes())
    return {
        "chats": rows,
        "examples": manifest["examples"],
        "treatments": manifest["facts"]["counts"]["treatments"],
        "tokens": manifest["arrays"]["ids.values"]["length"],
        "seconds": round(seconds, 1),
        "chats_per_second": round(rows / seconds, 1),
        "chats_per_cpu_second": round(rows / (used.ru_utime + used.ru_stime), 1),
        "peak_memory_mb": round(peak / 1e6),
        "text_mb": round((folder.data / "train.jsonl").stat().st_size / 1e6),
        "store_mb": round(sum(file.stat().st_size for file in store.iterdir()) / 1e6),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }


def _tree(pid: int) -> list[int]:
    """A process and its descendants, as far as they are alive."""
    found = [pid]
    for one in found:
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
    return found


def _memory(pid: int) -> int:
    """Bytes of memory of a process, shared pages in proportion; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    sys.exit(main())
