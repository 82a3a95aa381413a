"""Two processes that train run folders together, started once: `python -m tests.engine.rank_processes WORLD RUN…`.

The starter imports torch once and forks the ranks before any thread exists; each trains every folder in turn and
prints "RANK FOLDER CODE" lines.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from engine.run.folder import RunFolder
from engine.run.worker_process import RANK_VARIABLE

ROOT = Path(__file__).resolve().parents[2]


def train_together(folders: list[RunFolder], processes: int = 2) -> dict[str, list[int]]:
    """Train each folder with so many processes; exit codes by run, in the order of the ranks."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.rank_processes", str(processes), *(str(f.path) for f in folders)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    codes: dict[str, list[int]] = {f.id: [-1] * processes for f in folders}
    for line in done.stdout.splitlines():
        rank, name, code = line.split()
        codes[name][int(rank)] = int(code)
    assert all(code >= 0 for each in codes.values() for code in each), (codes, done.stderr[-4000:])
    return codes


def main(processes: int, folders: list[str]) -> int:
    """Fork the ranks and wait for all of them."""
    import peft  # noqa: F401
    import torch  # noqa: F401
    import transformers.models.llama  # noqa: F401

    import engine.worker  # noqa: F401

    children = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            os.environ[RANK_VARIABLE] = str(rank)
            os._exit(_be(rank, folders))
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


def _be(rank: int, folders: list[str]) -> int:
    from engine import train

    for folder in folders:
        code = train.main([folder])
        print(rank, Path(folder).name, code, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
