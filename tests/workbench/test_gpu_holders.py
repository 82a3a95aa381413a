"""Who has a GPU: the lease says it, the process behind it says which run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.run import gpus
from engine.run.gpus import Gpu
from tests.screens.driving import drive, sees
from workbench import gpu_holders
from workbench.workspace import init

UUIDS = [f"GPU-0000000{number}" for number in range(3)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Gpu]:
    """Three devices, the last of them full; the leases lie in a folder of the test's own."""
    folder = tmp_path / "leases"
    folder.mkdir()
    found = [Gpu(i, uuid, "NVIDIA A100", 81920, 70000 if i == 2 else 3, "570.1") for i, uuid in enumerate(UUIDS)]
    monkeypatch.setattr(gpus, "lease_folder", lambda: folder)
    monkeypatch.setattr(gpu_holders, "installed_gpus", lambda: found)
    return found


def test_free_leased_and_used_without_a_lease_are_told_apart(machine: list[Gpu]) -> None:
    held = gpus.lease([UUIDS[0]])
    try:
        holders = [use.holder for use in gpu_holders.gpu_uses()]
    finally:
        held.release()
    assert holders[0].endswith(f"(process {os.getpid()})")
    assert holders[1:] == ["free", "in use without a lease"]
    assert gpu_holders.gpu_uses()[0].holder == "free"


def test_a_supervisor_is_named_by_its_run(machine: list[Gpu], tmp_path: Path) -> None:
    run = tmp_path / "ws" / "runs" / "1124-dpo-one-abc"
    code = (
        "import sys; from pathlib import Path; from engine.run import gpus; "
        f"gpus.lease_folder = lambda: Path({str(tmp_path / 'leases')!r}); held = gpus.lease({UUIDS[:2]!r}); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, "engine.run.supervisor", str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert [use.holder for use in gpu_holders.gpu_uses()[:2]] == ["1124-dpo-one-abc"] * 2
        assert child.stdin is not None
        child.stdin.close()


def test_home_lists_them(machine: list[Gpu], tmp_path: Path) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "gpu 0 NVIDIA A100   0/80 GiB  free")
        await sees(pilot, "gpu 2 NVIDIA A100  68/80 GiB  in use without a lease")

    drive(script, init(tmp_path / "ws"))
