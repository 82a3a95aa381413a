"""From the start of a worker process to its first optimizer step, beside the imports that it cannot do without.

The run is a small one of the sample data's kind, so that its own step takes no time; what is measured is what stands
before it. Medians of five, the two taken in turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

TIMES = 5
ROOT = Path(__file__).resolve().parents[2]
IMPORTS = "import torch, transformers, peft"


def start_up(scratch: Path) -> dict[str, float]:
    """Seconds from process start to the first line of metrics, those of the imports alone, and their ratio."""
    from tests.engine.conftest import write_tiny_model
    from tests.engine.run_maker import make_run

    model = write_tiny_model(scratch / "tiny")
    ours, imports = [], []
    for i in range(TIMES):
        folder = make_run(
            scratch / f"start-{i}", "sft", model, train__steps=1, evaluation__at_start=False, probe__prompts=0
        )
        imports.append(_seconds([sys.executable, "-c", IMPORTS], None))
        ours.append(_seconds([sys.executable, "-m", "engine.train", str(folder.path)], folder.metrics_path))
    first, alone = statistics.median(ours), statistics.median(imports)
    return {"first_step_s": first, "imports_s": alone, "ratio": first / alone}


def _seconds(command: list[str], until: Path | None) -> float:
    """From the start of `command` until `until` holds a line, or until it ends."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as child:
        seconds = None
        while child.poll() is None:
            if until is not None and until.exists() and until.stat().st_size > 0:
                seconds = time.perf_counter() - began
                break
            time.sleep(0.005)
        complaint = child.communicate()[1]
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: {complaint[-2000:]}")
    return seconds if seconds is not None else time.perf_counter() - began
