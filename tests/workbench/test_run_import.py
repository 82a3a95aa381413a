"""Imported runs: what their metrics.jsonl says is what the source says, through every change of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.run.control import request
from engine.run.folder import RunFolder
from engine.run.locks import hold
from engine.run.metrics_log import read_metrics
from tests.workbench.test_foreign_logs import EVENTS, FILES
from workbench.cli import main
from workbench.curve_panels import panels_of
from workbench.curves import CurveLog
from workbench.errors import UsageError, WorkbenchError
from workbench.foreign_logs import Row, Rows, open_log
from workbench.growing_lines import GrowingLines
from workbench.run_board import BoardReader, describe_entry
from workbench.run_clone import clone_request
from workbench.run_control import prepare_resume
from workbench.run_import import LOGGED_KL, _Target, _write, follow, import_run
from workbench.run_list import find_run, summarise
from workbench.run_watch import frame
from workbench.workspace import Workspace


def write_state(path: Path, steps: int, total: int = 6, **more: float) -> Path:
    entries = [{"step": step, "loss": 1 / step, "mean_token_accuracy": 0.5, **more} for step in range(1, steps + 1)]
    path.write_text(json.dumps({"log_history": entries, "max_steps": total, "global_step": steps}))
    return path


def losses(folder: RunFolder) -> dict[int, float]:
    return {line.step: line.metrics["loss"] for line in read_metrics(folder.metrics_path)}


def test_it_reads_like_any_other_run_and_says_whose_it_is(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "my-dpo" / "trainer_state.json"
    source.parent.mkdir()
    source.write_bytes((FILES / "trainer_state_6.json").read_bytes())
    run = import_run(workspace, source).run
    assert "-dpo-my-dpo-" in run.id
    summary = summarise(run)
    assert (summary.state, summary.step, summary.total_steps) == ("imported", 6, 6)
    assert str(source) in summary.reason
    assert summary.last["eval_loss"] == run.metrics()[5].metrics["eval_loss"]
    text = "\n".join(frame(run))
    assert "rewards/margins" in text
    (entry,) = BoardReader(workspace).look()
    told = dict(describe_entry(entry))
    assert "settings" not in told
    assert told["imported"].endswith("trainer_state.json")
    titles = [panel.title for panel in panels_of("dpo", list(summary.last), run.config())]
    assert titles[0] == "loss"
    assert not any("sampled KL" in title for title in titles), "nothing measures it"


@pytest.mark.parametrize("verb", ["resume", "clone"])
def test_it_is_never_started(workspace: Workspace, tmp_path: Path, verb: str) -> None:
    run = import_run(workspace, write_state(tmp_path / "trainer_state.json", 3)).run
    with pytest.raises(WorkbenchError, match="another program"):
        prepare_resume(run) if verb == "resume" else clone_request(run)


def test_importing_again_reads_on(workspace: Workspace, tmp_path: Path) -> None:
    path = write_state(tmp_path / "trainer_state.json", 3)
    first = import_run(workspace, path, name="mine")
    assert (first.made, first.new_lines, first.run.given_name) == (True, 3, "mine")
    write_state(path, 5)
    second = import_run(workspace, path)
    assert (second.run.id, second.made, second.new_lines, second.steps) == (first.run.id, False, 2, 5)
    assert import_run(workspace, path).new_lines == 0
    with pytest.raises(UsageError, match=f"is imported already, as {first.run.id}"):
        import_run(workspace, path, name="other")
    lock = hold(second.run.folder.follow_lock_path)
    assert lock is not None
    with pytest.raises(WorkbenchError, match="is followed by another process"):
        import_run(workspace, path)
    assert summarise(second.run).state == "running"
    lock.release()


def test_a_log_without_numbers_is_no_run(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="no numbers of any step are in it yet"):
        import_run(workspace, write_state(tmp_path / "trainer_state.json", 0))
    with pytest.raises(UsageError, match="--method best: there are sft"):
        import_run(workspace, write_state(tmp_path / "trainer_state.json", 1), method="best")
    assert workspace.names("runs") == []


def test_a_kl_of_unknown_kind_is_not_called_ours(workspace: Workspace, tmp_path: Path) -> None:
    run = import_run(workspace, write_state(tmp_path / "a.json", 2, kl=0.3)).run
    assert LOGGED_KL in summarise(run).last
    kto = import_run(workspace, write_state(tmp_path / "b.json", 2, kl=0.3), method="kto").run
    assert "kl" in summarise(kto).last


class Source:
    """A log that says what it is told to."""

    kind, path, notes, total_steps = "csv", Path("/x.csv"), (), 0

    def __init__(self) -> None:
        self.rows: Rows = {}

    def read(self) -> bool:
        return True


STATES = st.dictionaries(st.integers(0, 9), st.sampled_from([0.5, 1.0, float("nan")]), min_size=1)


@settings(max_examples=12, deadline=None)
@given(st.lists(STATES, min_size=1, max_size=5))
@example([{0: 0.5, 1: 0.5}, {0: 0.5}, {0: 0.5, 1: 0.5}])
def test_what_is_written_is_what_the_source_says_now(
    tmp_path_factory: pytest.TempPathFactory, states: list[dict[int, float]]
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    source, lines, log = Source(), GrowingLines(folder.metrics_path), CurveLog()
    for state in states:
        source.rows = {step: Row(0.0, {"loss": value}) for step, value in state.items()}
        _write(_Target(folder, "r", "sft"), source)
        wanted = {step: repr(value) for step, value in sorted(state.items())}
        assert {step: repr(value) for step, value in losses(folder).items()} == wanted
        log.take(lines.read().lines)  # a viewer that has watched from the beginning
        points = log.metrics["loss"]
        assert dict(zip(points.steps, map(repr, points.values), strict=True)) == wanted


def test_following_ends_with_the_source_or_by_a_request(workspace: Workspace, tmp_path: Path) -> None:
    path = write_state(tmp_path / "trainer_state.json", 3)
    run = import_run(workspace, path).run
    told: list[tuple[int, int]] = []

    def tell(lines: int, step: int) -> None:
        told.append((lines, step))
        assert summarise(run).state == "running"

    path.write_text('{"log_hist')  # at the moment of being written
    growing = threading.Timer(0.1, write_state, [path, 6])
    growing.start()
    assert follow(run, open_log(path), tell, poll_s=0.01) == "its source has reached its last step, 6"
    growing.join()
    assert told == [(3, 6)]
    assert summarise(run).state == "imported"
    write_state(path, 5)

    def stop(lines: int, step: int) -> None:
        assert main(["--workspace", str(workspace.root), "runs", "stop", run.id]) == 0

    assert follow(run, open_log(path), stop, poll_s=0.01) == "it was stopped"
    assert list(losses(run.folder)) == [1, 2, 3, 4, 5]
    request(run.folder, "stop")


def test_the_command(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    def command(*arguments: str) -> Any:
        assert main(["--workspace", str(workspace.root), "runs", *arguments]) == 0
        return capsys.readouterr()

    run_id = command("import", str(EVENTS), "--name", "trl").out.strip()
    assert find_run(workspace, "trl").id == run_id
    shown = " ".join(command("show", "trl").out.split())
    assert "method dpo, trained by another program" in shown
    assert "TensorBoard events" in shown
    assert "imported" in command("ls").out
    assert json.loads(command("import", str(EVENTS), "--json").out)["new_lines"] == 0
    assert json.loads(command("show", "trl", "--json").out)["config"]["run"]["imported"].startswith("tensorboard:")
