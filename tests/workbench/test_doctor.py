"""The doctor names what is lacking, with both versions and the command that repairs it; train then refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.run import gpus
from workbench import doctor
from workbench.cli import main
from workbench.doctor import check_disk, check_hub, check_packages, check_sample_data, check_workspace, examine
from workbench.errors import UsageError, WorkbenchError
from workbench.launch_device import choose_device
from workbench.workspace import Workspace

NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *--query-gpu*) echo "0, GPU-1111, NVIDIA H200, 143771, 512, {driver}" ;;
  *) echo "| NVIDIA-SMI {driver}   Driver Version: {driver}   CUDA Version: {cuda} |" ;;
esac
"""


@pytest.fixture
def nvidia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a fake nvidia-smi on PATH and says what torch was built for."""

    def install(*, driver: str = "535.10", cuda: str = "12.2", torch_cuda: str | None = "13.0") -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(NVIDIA_SMI.format(driver=driver, cuda=cuda))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(gpus, "torch_cuda_version", lambda: torch_cuda)
        monkeypatch.setattr(gpus, "torch_version", lambda: "2.13.0")

    return install


class TestGpus:
    def test_a_driver_too_old_for_the_wheel_is_named_with_both_versions_and_the_repair(self, nvidia) -> None:
        nvidia(driver="535.10", cuda="12.2", torch_cuda="13.0")
        check = doctor.check_gpus()
        assert check.state == "lacks"
        assert "NVIDIA H200" in check.found
        for part in ("13.0", "12.2", "535.10", "pip install"):
            assert part in check.remedy

    def test_a_device_that_works(self, nvidia) -> None:
        nvidia(cuda="13.1", torch_cuda="13.0")
        assert doctor.check_gpus().state == "ok"
        assert choose_device("auto") == "cuda"
        assert choose_device("cpu") == "cpu"

    def test_training_never_falls_back_to_the_cpu_by_itself(self, nvidia) -> None:
        nvidia(torch_cuda=None)
        for wanted in ("auto", "cuda"):
            with pytest.raises(WorkbenchError, match="--device cpu"):
                choose_device(wanted)
        assert choose_device("cpu") == "cpu"

    def test_a_device_that_is_not_there(self, nvidia) -> None:
        nvidia(cuda="13.1", torch_cuda="13.0")
        assert choose_device("auto", (0,)) == "cuda"
        with pytest.raises(UsageError, match="there are: 0"):
            choose_device("auto", (3,))
        with pytest.raises(UsageError, match="exclude"):
            choose_device("cpu", (0,))

    def test_no_device(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert doctor.check_gpus().state == "note"
        assert choose_device("auto") == "cpu"
        with pytest.raises(WorkbenchError, match="--device cpu"):
            choose_device("cuda")


class TestOtherChecks:
    def test_a_missing_package_has_the_install_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "PACKAGES", ("orjson", "no-such-package-here"))
        check = check_packages()
        assert (check.state, "no-such-package-here" in check.found) == ("lacks", True)
        assert "pip install" in check.remedy

    def test_the_token_is_never_shown(self, tmp_path: Path) -> None:
        check = check_hub({"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_canary", "HF_HUB_OFFLINE": "1"})
        assert "hf_canary" not in f"{check.found}{check.remedy}"
        assert "a token" in check.found
        assert "HF_HUB_OFFLINE" in check.found

    def test_changed_sample_data_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  data/sft.jsonl\n")
        monkeypatch.setattr("sample_data.ROOT", tmp_path)
        check = check_sample_data()
        assert check.state == "lacks"
        assert "data/sft.jsonl" in check.found

    def test_workspace_and_disk(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        assert check_workspace(str(workspace.root)).state == "ok"
        assert check_workspace(str(workspace.root / "nothing")).state == "lacks"
        workspace.root.chmod(0o777)
        assert "chmod" in check_workspace(str(workspace.root)).remedy
        workspace.root.chmod(0o700)
        monkeypatch.setattr(doctor, "free_megabytes", lambda place: 5)
        monkeypatch.setattr(doctor, "_device_of", lambda place: 7)
        assert check_disk(str(workspace.root)).found.count("MB free") == 1  # one disk is said once
        assert check_disk(str(workspace.root)).state == "lacks"


def test_the_command_prints_every_check_and_its_exit_code_says_whether_all_is_well(
    capsys: pytest.CaptureFixture[str], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = main(["--workspace", str(workspace.root), "doctor", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in facts["checks"]] == [check.name for check in examine(str(workspace.root))]
    assert code == (1 if facts["lacks"] else 0)
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package-here",))
    assert main(["--workspace", str(workspace.root), "doctor"]) == 1
    out = capsys.readouterr().out
    assert "LACKS  packages" in out
    assert "do: " in out
