"""Devices, leases, and why torch cannot use a device: without a device, from what nvidia-smi would say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import DeviceTaken, EngineError
from engine.run import control, gpus
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.gpus import Gpu, chosen_uuids, installed_gpus, lease, lease_first_free, unusable_reason
from engine.run.locks import is_held
from engine.run.status import describe, read_status
from engine.run.supervisor import Patience, run_supervised
from engine.run.worker_process import PREPARE
from tests.engine.run.run_processes import fake_worker

ONE = Gpu(0, "GPU-aaa1", "NVIDIA H100", 81559, 10, "550.54.15")
TWO = Gpu(1, "GPU-bbb2", "NVIDIA H100", 81559, 0, "550.54.15")
NVIDIA_SMI = """#!/bin/sh
case "$1" in
--query-gpu=*) echo "0, GPU-aaa1, NVIDIA H100, 81559, 10, 550.54.15"
echo "1, GPU-bbb2, NVIDIA H100, 81559, [N/A], 550.54.15";;
*) echo "| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4     |";;
esac
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two devices: an nvidia-smi that is ours, and a folder for leases of our own."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "leases").mkdir()
    monkeypatch.setattr(gpus, "lease_folder", lambda: tmp_path / "leases")
    return tmp_path


class TestInstalled:
    """What nvidia-smi says."""

    def test_devices_and_driver(self, machine: Path) -> None:
        assert installed_gpus() == [ONE, TWO]
        assert gpus.driver_cuda_version() == "12.4"

    def test_without_nvidia_smi_there_are_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert installed_gpus() == []
        assert gpus.driver_cuda_version() is None
        assert "no NVIDIA device" in str(gpus.torch_usable())

    def test_an_nvidia_smi_that_fails_is_none(self, machine: Path) -> None:
        (machine / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
        assert installed_gpus() == []

    def test_torch_is_asked_without_importing_it(self) -> None:
        program = (
            "import sys; from engine.run.gpus import torch_cuda_version, torch_version\n"
            "print(torch_version(), torch_cuda_version()); sys.exit('torch' in sys.modules)"
        )
        root = Path(__file__).resolve().parents[3]
        done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        from importlib.metadata import version

        assert done.stdout.split()[0].partition("+")[0] == version("torch").partition("+")[0]


@pytest.mark.parametrize(
    ("torch", "built_for", "driver_cuda", "words"),
    [
        ("2.13.0", "12.8", "12.4", []),
        ("2.13.0", "12.8", "13.0", []),
        ("2.13.0", "13.0", "13.1", []),
        ("2.13.0", "12.8", None, []),
        ("2.13.0", "13.0", "12.4", ["torch 2.13.0 is built for CUDA 13.0", "runs CUDA 12.4", "torch==2.13.0", "cu126"]),
        ("2.13.0", "12.8", "11.8", ["CUDA 12.8", "CUDA 11.8", "update the NVIDIA driver"]),
        ("2.13.0+cpu", None, "12.4", ["for the CPU only", "offers CUDA 12.4", "torch==2.13.0 --index-url", "cu126"]),
        ("2.13.0+cpu", None, "13.1", ["pip install --force-reinstall torch==2.13.0"]),
        (None, None, "12.4", ["torch is not installed: pip install"]),
    ],
)
def test_why_torch_cannot_use_a_device(
    torch: str | None, built_for: str | None, driver_cuda: str | None, words: list[str]
) -> None:
    reason = unusable_reason(torch, built_for, "550.54.15", driver_cuda)
    assert (reason is None) == (not words)
    for word in words:
        assert word in str(reason)


class TestLeases:
    """One run on one device."""

    def test_all_or_none(self, machine: Path) -> None:
        first = lease(["GPU-bbb2"])
        with pytest.raises(EngineError, match=rf"GPU GPU-bbb2 is leased by process {os.getpid()} of user"):
            lease(["GPU-bbb2", "GPU-aaa1"])
        second = lease(["GPU-aaa1"])
        assert len(first.descriptors) == 1
        assert os.get_inheritable(first.descriptors[0])
        first.release()
        second.release()
        assert second.descriptors == ()
        lease(["GPU-aaa1", "GPU-bbb2"]).release()
        modes = {path.stat().st_mode & 0o777 for path in (machine / "leases").iterdir()}
        assert modes == {0o666}

    def test_a_child_keeps_the_device_to_itself(self, machine: Path) -> None:
        held = lease(["GPU-aaa1"])
        child = subprocess.Popen(["sleep", "300"], pass_fds=held.descriptors)
        held.release()
        with pytest.raises(EngineError, match="is leased by"):
            lease(["GPU-aaa1"])
        child.kill()
        child.wait()
        lease(["GPU-aaa1"]).release()

    def test_the_first_free_one(self, machine: Path) -> None:
        first = lease_first_free([ONE.uuid, TWO.uuid])
        second = lease_first_free([ONE.uuid, TWO.uuid])
        assert (first.uuids, second.uuids) == (("GPU-aaa1",), ("GPU-bbb2",))
        with pytest.raises(EngineError, match=r"no GPU is free: .*GPU-aaa1.*GPU-bbb2.*--device cpu"):
            lease_first_free([ONE.uuid, TWO.uuid])
        first.release()
        second.release()

    def test_the_folder_is_for_everyone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpus, "Path", lambda *parts: tmp_path / "lock" if parts == ("/run/lock",) else Path(*parts))
        (tmp_path / "lock").mkdir()
        folder = gpus.lease_folder()
        assert folder == tmp_path / "lock" / "workbench"
        assert folder.stat().st_mode & 0o7777 == 0o1777
        assert gpus.lease_folder() == folder


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("0", ["GPU-aaa1"]), ("1,0", ["GPU-bbb2", "GPU-aaa1"]), ("GPU-b", ["GPU-bbb2"]), ("", []), ("-1", []),
        ("0,-1,1", ["GPU-aaa1"]), ("MIG-123", ["MIG-123"]),
    ],
)  # fmt: skip
def test_devices_are_chosen_as_nvidia_smi_numbers_them(visible: str, uuids: list[str]) -> None:
    assert chosen_uuids([ONE, TWO], visible) == uuids


@pytest.mark.parametrize("visible", ["2", "GPU-", "GPU-c", "all"])
def test_a_device_that_is_not_there_is_named(visible: str) -> None:
    with pytest.raises(EngineError, match=rf"no GPU {visible} here. There is: 0 \(GPU-aaa1\), 1"):
        chosen_uuids([ONE, TWO], visible)


class TestRunsOnDevices:
    """The supervisor leases, and shows the worker only what it leased."""

    SHOW = (
        "import os; print('SEES', os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ.get('CUDA_DEVICE_ORDER'))\n"
        "print('HOLDS', [os.path.realpath(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')])"
    )

    def test_the_worker_sees_its_lease(self, machine: Path, make_run: Callable[..., RunFolder]) -> None:
        folder = make_run(train={"device": "cuda"})
        taken = lease(["GPU-aaa1"])
        run_supervised(folder.path, worker=[sys.executable, "-c", self.SHOW])
        log = folder.log_path.read_text()
        assert "SEES GPU-bbb2 PCI_BUS_ID" in log
        assert f"{machine / 'leases' / 'GPU-bbb2.lock'}" in log, "an orphan must keep its device"
        taken.release()
        lease(["GPU-bbb2"]).release()

    def test_each_process_has_a_device_of_its_own(
        self, machine: Path, make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_run(train={"device": "cuda", "processes": 2})
        run_supervised(folder.path, worker=[sys.executable, "-c", self.SHOW])
        log = folder.log_path.read_text()
        assert log.count("SEES GPU-aaa1,GPU-bbb2 PCI_BUS_ID") == 2
        assert log.count(f"{machine / 'leases' / 'GPU-bbb2.lock'}") == 2
        taken = lease(["GPU-bbb2"])
        with pytest.raises(DeviceTaken, match="only 1 of 2 GPUs is free: GPU GPU-bbb2 is leased by process"):
            run_supervised(folder.path, worker=[sys.executable, "-c", self.SHOW])
        lease(["GPU-aaa1"]).release()
        taken.release()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        with pytest.raises(EngineError, match=r"2 processes, each on a GPU of its own, but CUDA_VISIBLE_DEVICES=1 n"):
            run_supervised(folder.path, worker=[sys.executable, "-c", self.SHOW])

    def test_of_many_visible_devices_a_run_leases_what_it_needs(
        self, machine: Path, make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_run(train={"device": "cuda"})
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
        run_supervised(folder.path, worker=[sys.executable, "-c", self.SHOW])
        assert "SEES GPU-bbb2 PCI_BUS_ID" in folder.log_path.read_text()

    def test_a_taken_device_refuses_before_anything_is_written(
        self, machine: Path, make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_run(train={"device": "cuda"})
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        taken = lease(["GPU-aaa1"])
        with pytest.raises(EngineError, match="GPU-aaa1 is leased by"):
            run_supervised(folder.path, worker=fake_worker(folder))
        assert not folder.status_path.exists()
        taken.release()

    def test_a_run_on_the_cpu_leases_nothing(self, machine: Path, make_run: Callable[..., RunFolder]) -> None:
        folder = make_run(train={"device": "cpu"})
        taken = lease(["GPU-aaa1", "GPU-bbb2"])
        run_supervised(folder.path, worker=[sys.executable, "-c", self.SHOW])
        assert "SEES None None" in folder.log_path.read_text()
        taken.release()


class TestPreparation:
    """Data is made ready before a device is leased."""

    @pytest.fixture
    def prepared(self, machine: Path, make_run: Callable[..., RunFolder]) -> Callable[..., tuple[int, RunFolder]]:
        """Run a fake worker on a device, with its preparation; the exit code and the run."""

        def run(*, queued: bool = False, device: str = "cuda", **options: object) -> tuple[int, RunFolder]:
            folder = make_run(train={"device": device})
            worker = fake_worker(folder, steps=3, step_s=0, leases=str(machine / "leases"), **options)
            code = run_supervised(
                folder.path,
                worker=worker,
                preparation=[*worker, PREPARE],
                patience=Patience(look_s=0.05),
                queued=queued,
            )
            return code, folder

        return run

    @pytest.mark.parametrize("queued", [False, True])
    def test_no_device_is_held_meanwhile(
        self, prepared: Callable[..., tuple[int, RunFolder]], machine: Path, queued: bool
    ) -> None:
        lease(["GPU-aaa1", "GPU-bbb2"]).release()
        code, folder = prepared(queued=queued)
        assert code == 0
        assert "PREPARED '' []" in folder.log_path.read_text()
        kinds = [event["kind"] for event in read_events(folder)]
        assert kinds == ["queued"] * queued + ["started", "done"]
        status = read_status(folder)
        assert status is not None
        assert (status.phase, status.attempt, status.rows_to_prepare) == ("done", 1, 0)

    def test_a_run_without_a_lease_prepares_in_its_worker(self, prepared: Callable[..., tuple[int, RunFolder]]) -> None:
        code, folder = prepared(device="cpu")
        assert code == 0
        assert "PREPARED" not in folder.log_path.read_text()

    @pytest.mark.parametrize("queued", [False, True])
    def test_a_stop_is_heard_and_no_worker_begins(
        self, prepared: Callable[..., tuple[int, RunFolder]], queued: bool
    ) -> None:
        code, folder = prepared(prepare="stop", queued=queued)
        assert code == 3
        assert describe(folder).state == "stopped"
        assert "started" not in [event["kind"] for event in read_events(folder)]
        assert control.pending(folder, "stop") is None
        assert not is_held(folder.tree_lock_path)
        lease(["GPU-aaa1", "GPU-bbb2"]).release()

    def test_its_death_is_the_run_s_end_and_can_be_resumed(
        self, prepared: Callable[..., tuple[int, RunFolder]]
    ) -> None:
        code, folder = prepared(prepare="9")
        assert code == 1
        assert "the process that prepares its data was killed by the kernel or by hand" in describe(folder).reason
        lease(["GPU-aaa1", "GPU-bbb2"]).release()
        assert run_supervised(folder.path, worker=fake_worker(folder, steps=3, step_s=0)) == 0

    def test_where_the_devices_are_taken_in_the_meantime_the_run_queues(
        self, prepared: Callable[..., tuple[int, RunFolder]], machine: Path
    ) -> None:
        lease(["GPU-aaa1", "GPU-bbb2"]).release()
        code, folder = prepared(prepare="taken")
        assert code == 0
        assert [event["kind"] for event in read_events(folder)] == ["queued", "started", "done"]
