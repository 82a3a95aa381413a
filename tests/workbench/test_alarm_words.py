"""What a person is told of a run's alarms, and what a run that an alarm stopped needs to go on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from engine.run.events import append_event
from engine.run.folder import RunFolder
from engine.run.status import read_status, write_status
from tests.workbench.run_folders import make_run
from workbench.alarm_words import alarm_fields, alarm_lines
from workbench.cli import main
from workbench.errors import WorkbenchError
from workbench.run_board import BoardReader, describe_entry
from workbench.run_control import prepare_resume
from workbench.run_list import find_run
from workbench.run_watch import follow, frame, wait_for_end
from workbench.workspace import Workspace

ID = "1124-ppo-a-k3f"
EVENT = {
    "kind": "alarm", "alarm": "kl_runaway", "step": 4, "onset": 3, "action": "pause", "what": "KL far beyond: 9, 12",
    "explanation": "It has left.", "remedy": "Go back.", "kept_checkpoint": 2,
}  # fmt: skip


def alarmed(workspace: Workspace, action: str = "pause", phase: str = "stopped") -> RunFolder:
    folder = make_run(workspace, ID, phase=phase, checkpoints=(2, 4))
    status = read_status(folder)
    assert status is not None
    by = {"alarm": "kl_runaway", "action": action} if phase == "stopped" else None
    write_status(folder, replace(status, alarm="KL far beyond its target since step 3 (kl_runaway).", stopped_by=by))
    fields: dict[str, Any] = {**EVENT, "action": action}
    append_event(folder, fields.pop("kind"), **fields)
    return folder


def command(workspace: Workspace, *words: str) -> int:
    return main(["--workspace", str(workspace.root), "runs", *words])


def test_an_alarm_is_told_whole() -> None:
    fields = alarm_fields([{"kind": "started"}, {"kind": "alarm"}, EVENT], ID)
    assert fields == {
        "alarm kl_runaway": "step 4, since step 3: KL far beyond: 9, 12. It has left. Go back. The run was paused; the "
        f"checkpoint before it is kept: run:{ID}@2."
    }
    assert alarm_lines([{**EVENT, "action": "note", "kept_checkpoint": None}], ID) == [
        "alarm kl_runaway at step 4: KL far beyond: 9, 12."
    ]


def test_show_list_and_frame_say_it(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    alarmed(workspace)
    assert command(workspace, "show", "-") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "paused by the alarm kl_runaway at step 4; resume continues from step 4" in shown
    assert "Go back. The run was paused" in shown
    assert command(workspace, "ls") == 0
    assert "stopped · alarm" in capsys.readouterr().out
    assert command(workspace, "ls", "--json") == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["alarm"].startswith("KL far beyond")
    assert "alarm: KL far beyond its target since step 3 (kl_runaway)." in frame(find_run(workspace, "-"))
    (entry,) = BoardReader(workspace).look()
    assert dict(describe_entry(entry))["alarm"].startswith("KL far beyond")


def test_who_follows_hears_of_it_once(workspace: Workspace) -> None:
    alarmed(workspace)
    told: list[str] = []
    hear = follow(told.append)
    assert wait_for_end(find_run(workspace, "-"), hear) == 3
    assert wait_for_end(find_run(workspace, "-"), hear) == 3
    assert [line for line in told if "alarm:" in line] == [
        f"{ID}  alarm: KL far beyond its target since step 3 (kl_runaway)."
    ]


@pytest.mark.parametrize(
    ("action", "changes", "refused"),
    [
        ("pause", (), False),
        ("stop", (), True),
        ("stop", ("train.tokens_per_micro_batch", "alarm_kl.threshold"), True),
        ("stop", ("alarm_kl_runaway.on_alarm",), False),
    ],
)
def test_a_pause_goes_on_as_it_is_and_a_stop_needs_a_word(
    workspace: Workspace, action: str, changes: tuple[str, ...], refused: bool
) -> None:
    alarmed(workspace, action)
    run = find_run(workspace, "-")
    if refused:
        with pytest.raises(WorkbenchError, match=r"stopped by the alarm kl_runaway"):
            prepare_resume(run, changes=changes)
    else:
        prepare_resume(run, changes=changes)
