"""A run that a newer version has written: what is understood of it is shown and said, and nothing goes on with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.run.locks import hold
from engine.run.metrics_log import Supersession
from workbench.cli import main
from workbench.curves import RunCurves
from workbench.errors import WorkbenchError
from workbench.run_control import prepare_resume
from workbench.run_frame import FrameLook, RunFrame
from workbench.run_list import Run, find_run, summarise
from workbench.run_samples import RunSamples
from workbench.several_runs import SeveralRuns
from workbench.workspace import Workspace

NEWER = Path(__file__).with_name("newer_run")
ID = "1130-dpo-newer-k3f"
SAID = "written by a newer version of this program: what is understood of it is shown"
FORMATS = "(run.toml has format 2, this one reads 1; status.json has format 2, this one reads 1)"


@pytest.fixture
def run(workspace: Workspace) -> Run:
    shutil.copytree(NEWER, workspace.runs / ID)
    return find_run(workspace, "newer")


def test_its_curves_events_and_samples_are_what_is_understood(run: Run) -> None:
    curves = RunCurves(run)
    glance = curves.look()
    assert list(curves.log.metrics["loss"].steps) == list(range(1, 31))
    assert len(curves.log.metrics["qualia/density"]) == 30, "a metric without a definition is a curve all the same"
    assert not {"tensor", "words"} & curves.log.metrics.keys()
    assert [(event.step, event.kind) for event in glance.events] == [(10, "checkpoint"), (20, "resumed")]
    samples = RunSamples(run.folder)
    assert samples.read() == 2
    (known,) = samples.at((10, "probe"), Supersession())
    assert (known.completion, known.reward, known.ends) == ("Because.", 0.5, (4, 8))


def test_it_is_said_on_the_frame_in_lists_and_beside_others(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    frame = "\n".join(RunFrame(run).lines(FrameLook(160, 48)))
    assert SAID in frame
    assert FORMATS in " ".join(frame.split())
    assert "reflecting: a phase that a newer version of this program has" in frame
    assert "step 30/40" in frame
    assert "qualia/density" in frame
    assert "margins, nats" in frame
    assert main(["--workspace", str(run.workspace.root), "runs", "ls", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    assert listed["note"].startswith(SAID)
    assert listed["state"] == "unknown-here"
    assert SeveralRuns(run.workspace, ID).look().facts[0].settings == {}


def test_while_it_runs_it_is_running(run: Run) -> None:
    lock = hold(run.folder.lock_path)
    try:
        assert summarise(run).state == "running"
    finally:
        assert lock is not None
        lock.release()


@pytest.mark.parametrize("older", ["run.toml", "status.json"])
def test_nothing_goes_on_with_it_whichever_file_is_newer(run: Run, older: str) -> None:
    path = run.folder.path / older
    content = path.read_text().partition("\n[swarm]")[0] + "\n"
    path.write_text(content.replace("schema = 2", "schema = 1").replace('"schema": 2', '"schema": 1'))
    kept = {file: file.read_bytes() for file in run.folder.path.iterdir()}
    with pytest.raises((ConfigError, WorkbenchError), match="newer version"):
        prepare_resume(run)
    assert {file: file.read_bytes() for file in run.folder.path.iterdir()} == kept
    said = summarise(run).note
    assert "newer version" in said
    assert older not in said


def test_a_run_of_this_version_says_nothing(run: Run) -> None:
    for name in ("run.toml", "status.json"):
        path = run.folder.path / name
        path.write_text(path.read_text().replace("schema = 2", "schema = 1").replace('"schema": 2', '"schema": 1'))
    assert summarise(run).note == ""
    assert summarise(run).state == "interrupted", "a phase that no version has is no status"
