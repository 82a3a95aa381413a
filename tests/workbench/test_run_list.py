"""A run is found by what a person types, and a list says the truth about each."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from engine.run.locks import hold
from tests.workbench.run_folders import make_run
from workbench.cli import main
from workbench.errors import NotFound, UsageError
from workbench.run_list import age, all_runs, exit_code_of, find_run, name_in_id, summarise
from workbench.workspace import Workspace


class TestFinding:
    @pytest.fixture(autouse=True)
    def runs(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-sample-k3f", created="2026-11-24T10:00:00+00:00")
        make_run(workspace, "1124-dpo-sample-a1b", created="2026-11-24T12:00:00+00:00")
        make_run(workspace, "1123-sft-qwen3-8b-zzz", created="2026-11-23T12:00:00+00:00")

    def test_the_latest_is_one_of_the_runs_that_were_seen(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Runs may be deleted while they are looked through."""
        seen = [["1124-dpo-sample-a1b"], []]
        monkeypatch.setattr(Workspace, "names", lambda space, kind: seen.pop(0))
        assert find_run(workspace, "-").id == "1124-dpo-sample-a1b"

    @pytest.mark.parametrize(
        ("typed", "found"),
        [
            ("1124-sft-sample-k3f", "1124-sft-sample-k3f"),
            ("1124-d", "1124-dpo-sample-a1b"),
            ("1123", "1123-sft-qwen3-8b-zzz"),
            ("qwen3-8b", "1123-sft-qwen3-8b-zzz"),
            ("run:1123", "1123-sft-qwen3-8b-zzz"),
            ("-", "1124-dpo-sample-a1b"),
        ],
    )
    def test_an_id_a_beginning_a_name_or_the_latest(self, workspace: Workspace, typed: str, found: str) -> None:
        assert find_run(workspace, typed).id == found

    @pytest.mark.parametrize(
        ("typed", "said"), [("sample", "2 runs called after sample"), ("1124", "2 runs that begin with")]
    )
    def test_several_are_listed(self, workspace: Workspace, typed: str, said: str) -> None:
        with pytest.raises(UsageError, match=said) as caught:
            find_run(workspace, typed)
        assert "1124-dpo-sample-a1b" in str(caught.value)

    def test_a_given_name_is_never_ambiguous_with_what_unnamed_runs_are_called(self, workspace: Workspace) -> None:
        make_run(workspace, "1125-sft-sample-new", name="sample")
        assert find_run(workspace, "sample").id == "1125-sft-sample-new"
        make_run(workspace, "1125-dpo-sample-x2y", source="run:1125-sft-sample-new@4")
        assert find_run(workspace, "run:sample").id == "1125-sft-sample-new"
        with pytest.raises(NotFound, match="no run 'qwen3-8b'"):
            find_run(workspace, "qwen3-8b", by_model=False)

    def test_a_name_longer_than_its_part_of_the_id_is_found_whole(self, workspace: Workspace) -> None:
        name = "support-answers-of-the-second-quarter"
        make_run(workspace, f"1125-sft-{name_in_id(name)}-new", name=name)
        make_run(workspace, f"1125-sft-{name_in_id(name)}-old", name=f"{name}-more")
        assert find_run(workspace, name).id.endswith("-new")

    @pytest.mark.parametrize("typed", ["nothing", "", "../runs"])
    def test_none(self, workspace: Workspace, typed: str) -> None:
        with pytest.raises(NotFound, match="no run"):
            find_run(workspace, typed)

    def test_the_list_is_in_the_order_of_creation(self, workspace: Workspace) -> None:
        assert [run.id[:8] for run in all_runs(workspace)] == ["1123-sft", "1124-sft", "1124-dpo"]

    def test_name_and_method_are_in_the_id(self, workspace: Workspace) -> None:
        run = find_run(workspace, "1123")
        assert (run.name, run.method) == ("qwen3-8b", "sft")


class TestStates:
    def test_a_finished_run(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-a-k3f", checkpoints=(2, 4), best=2)
        summary = summarise(find_run(workspace, "-"))
        assert (summary.state, summary.step, summary.total_steps) == ("done", 4, 8)
        assert summary.last["eval_loss"] == 0.25

    def test_alive_means_the_lock_is_held(self, workspace: Workspace) -> None:
        folder = make_run(workspace, "1124-sft-a-k3f", phase="running")
        assert summarise(find_run(workspace, "-")).state == "interrupted"
        lock = hold(folder.lock_path)
        assert lock is not None
        assert summarise(find_run(workspace, "-")).state == "running"
        lock.release()

    def test_a_damaged_run_does_not_hide_the_others(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_run(workspace, "1124-sft-a-k3f")
        make_run(workspace, "1124-sft-b-k3f").config_path.unlink()
        assert main(["--workspace", str(workspace.root), "runs", "ls"]) == 0
        out = capsys.readouterr().out
        assert "1124-sft-a-k3f  done" in out
        assert "1124-sft-b-k3f  damaged" in out
        assert max(map(len, out.splitlines())) <= 80

    def test_exit_codes(self) -> None:
        assert [exit_code_of(state) for state in ("done", "stopped", "failed", "interrupted")] == [0, 3, 1, 1]


class TestCommands:
    def test_show_says_what_to_do_next(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        make_run(workspace, "1124-sft-a-k3f", phase="stopped", checkpoints=(4,))
        assert main(["--workspace", str(workspace.root), "runs", "show", "-"]) == 0
        assert "workbench runs resume 1124-sft-a-k3f" in capsys.readouterr().out

    def test_show_json(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        make_run(workspace, "1124-dpo-a-k3f", checkpoints=(4,))
        main(["--workspace", str(workspace.root), "runs", "show", "-", "--json"])
        facts = json.loads(capsys.readouterr().out)
        assert facts["schema"] == 1
        assert facts["config"]["dpo"]["beta"] == 0.1
        assert facts["checkpoints"] == [4]

    def test_logs_are_the_end_of_the_log_made_safe(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = make_run(workspace, "1124-sft-a-k3f")
        folder.log_path.write_bytes(b"one\ntwo \x1b[2J\xff\nthree")
        assert main(["--workspace", str(workspace.root), "runs", "logs", "-", "-n", "2"]) == 0
        assert capsys.readouterr().out.splitlines() == ["two ␛[2J\ufffd", "three"]

    def test_what_does_not_run_cannot_be_stopped_and_what_is_done_not_resumed(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_run(workspace, "1124-sft-a-k3f")
        assert main(["--workspace", str(workspace.root), "runs", "stop", "-"]) == 1
        assert "is not running: done" in capsys.readouterr().err
        assert main(["--workspace", str(workspace.root), "runs", "resume", "-"]) == 1
        assert "--model run:1124-sft-a-k3f" in capsys.readouterr().err

    def test_stop_writes_a_request(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        folder = make_run(workspace, "1124-sft-a-k3f", phase="running")
        lock = hold(folder.lock_path)
        assert main(["--workspace", str(workspace.root), "runs", "stop", "-"]) == 0
        assert (folder.control / "stop.json").exists()
        assert lock is not None
        lock.release()

    def test_a_living_run_is_not_resumed_but_watched(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = make_run(workspace, "1124-sft-a-k3f", phase="running")
        lock = hold(folder.lock_path)
        assert main(["--workspace", str(workspace.root), "runs", "resume", "-"]) == 1
        assert "running already; watch it with: workbench runs watch 1124-sft-a-k3f" in capsys.readouterr().err
        assert lock is not None
        lock.release()

    def test_a_failed_run_offers_log_and_resume(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        make_run(workspace, "1124-sft-a-k3f", phase="failed", checkpoints=(2,))
        assert main(["--workspace", str(workspace.root), "runs", "show", "run:1124-sft-a-k3f"]) == 0
        out = capsys.readouterr().out
        assert "workbench runs logs 1124-sft-a-k3f" in out
        assert "workbench runs resume 1124-sft-a-k3f" in out


def test_age() -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    times = ("2026-11-24T11:59:30+00:00", "2026-11-24T11:00:00+00:00", "2026-11-12T12:00:00+00:00", "", "rubbish")
    assert [age(time, now) for time in times] == ["30s", "1h", "12d", "-", "-"]
