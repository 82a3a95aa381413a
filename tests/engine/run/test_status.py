"""What a run is: every combination of locks, phase, host and boot has its true name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from engine.errors import RunFolderError
from engine.run import control, status
from engine.run.folder import RunFolder
from engine.run.locks import hold
from engine.run.status import FINAL_PHASES, PHASES, Status, describe, new_status, read_status, write_status

MakeRun = Callable[..., RunFolder]


class _Held:
    def __init__(self, path: Path) -> None:
        lock = hold(path)
        assert lock is not None
        self._lock = lock

    def close(self) -> None:
        self._lock.release()


@pytest.fixture
def holding() -> Iterator[Callable[[Path], None]]:
    """Holds a lock to the end of the test."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(closing(_Held(path))) and None


def say(folder: RunFolder, phase: str, **fields: object) -> Status:
    now = replace(new_status(folder, None, phase=phase), **{"step": 7, "total_steps": 20, **fields})  # type: ignore[arg-type]
    write_status(folder, now)
    return now


def seal(folder: RunFolder, step: int) -> None:
    folder.checkpoint_path(step).mkdir()
    (folder.checkpoint_path(step) / "MANIFEST.json").write_text("{}")


class TestFile:
    """status.json."""

    def test_it_comes_back_equal(self, make_run: MakeRun) -> None:
        folder = make_run()
        written = say(
            folder, "failed", error={"what": "x", "remedy": "y"}, best={"step": 1, "metric": "m", "value": 2.0},
            last={"loss": 1.5, "bad": None}, steps_per_s=2.5, seconds_left=5.0, device="cpu", attempt=3,
        )  # fmt: skip
        assert read_status(folder) == written
        assert folder.status_path.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"phase":"dancing"}', b"\xff"])
    def test_a_torn_or_foreign_one_is_none(self, make_run: MakeRun, content: bytes) -> None:
        folder = make_run()
        folder.status_path.write_bytes(content)
        assert read_status(folder) is None
        assert describe(folder).state == "interrupted"
        assert "cannot be read" in describe(folder).reason

    def test_fields_of_a_newer_program_or_of_a_wrong_kind_are_left_out(self, make_run: MakeRun) -> None:
        folder = make_run()
        folder.status_path.write_bytes(
            orjson.dumps({"phase": "done", "schema": 9, "step": "7", "pid": True, "mood": "good", "attempt": 2})
        )
        assert read_status(folder) == Status(run="r1", phase="done", schema=9, attempt=2)

    def test_a_new_process_takes_over_what_lasts(self, make_run: MakeRun) -> None:
        folder = make_run()
        before = say(folder, "failed", attempt=4, started=5.0, error={"what": "x"}, seconds_left=9.0, host="old", pid=1)
        now = new_status(folder, before, phase="preparing")
        assert (now.attempt, now.step, now.started, now.phase) == (4, 7, 5.0, "preparing")
        assert (now.error, now.seconds_left) == (None, None)
        assert (now.host, now.boot_id) == (status.this_host(), status.this_boot())

    def test_a_phase_that_does_not_exist_is_refused(self, make_run: MakeRun) -> None:
        folder = make_run()
        with pytest.raises(ValueError, match="no phase"):
            write_status(folder, Status(run="r1", phase="sleeping"))

    def test_a_status_that_cannot_be_written_says_why(self, make_run: MakeRun) -> None:
        folder = make_run()
        folder.status_path.mkdir()
        with pytest.raises(RunFolderError, match="writing the run's status"):
            say(folder, "running")


class TestDescribe:
    """The truth table of locks and phase."""

    @pytest.mark.parametrize("phase", PHASES)
    def test_with_both_locks_free_only_a_final_phase_is_believed(self, make_run: MakeRun, phase: str) -> None:
        folder = make_run()
        say(folder, phase)
        seal(folder, 5)
        state = describe(folder)
        assert state.state == (phase if phase in FINAL_PHASES else "interrupted")
        assert not state.alive
        if state.state == "interrupted":
            at = "while it was queued" if phase == "queued" else "at step 7"
            assert state.reason == f"killed {at}; resume continues from step 5"
            assert state.resumable

    @pytest.mark.parametrize(
        ("phase", "state"),
        [
            ("preparing", "preparing"), ("running", "running"), ("evaluating", "running"), ("checkpointing", "running"),
            ("stopping", "stopping"), ("done", "stopping"), ("stopped", "stopping"), ("failed", "stopping"),
        ],
    )  # fmt: skip
    def test_supervised(self, make_run: MakeRun, holding: Callable[[Path], None], phase: str, state: str) -> None:
        folder = make_run()
        say(folder, phase)
        holding(folder.lock_path)
        holding(folder.tree_lock_path)
        assert describe(folder).state == state
        assert describe(folder).alive

    @pytest.mark.parametrize("phase", PHASES)
    def test_a_tree_without_supervisor_is_orphaned(
        self, make_run: MakeRun, holding: Callable[[Path], None], phase: str
    ) -> None:
        folder = make_run()
        say(folder, phase)
        holding(folder.tree_lock_path)
        state = describe(folder)
        assert state.state == "orphaned"
        assert "its supervisor is gone" in state.reason

    def test_never_started(self, make_run: MakeRun) -> None:
        state = describe(make_run())
        assert (state.state, state.reason) == ("interrupted", "it was never started; resume begins at the start")

    def test_just_started(self, make_run: MakeRun, holding: Callable[[Path], None]) -> None:
        folder = make_run()
        holding(folder.lock_path)
        assert describe(folder).state == "preparing"

    def test_a_stop_request_shows_at_once(self, make_run: MakeRun, holding: Callable[[Path], None]) -> None:
        folder = make_run()
        say(folder, "running")
        holding(folder.lock_path)
        control.request(folder, "stop")
        assert describe(folder).state == "stopping"

    def test_a_quiet_run_is_alive_and_said_to_be_quiet(
        self, make_run: MakeRun, holding: Callable[[Path], None]
    ) -> None:
        folder = make_run()
        say(folder, "running", heartbeat=time.time() - 100)
        holding(folder.lock_path)
        state = describe(folder)
        assert state.state == "running"
        assert "no heartbeat for 100 s" in state.reason

    def test_a_failure_names_reason_and_resume(self, make_run: MakeRun) -> None:
        folder = make_run()
        say(folder, "failed", error={"what": "loss was nan", "remedy": "lower optim.lr"})
        assert describe(folder).reason == "loss was nan (at step 7; resume begins at the start)"

    @pytest.mark.parametrize("content", [None, b"", b"[run]", b"schema = 1\n"])
    def test_without_a_whole_run_toml_it_is_damaged(self, make_run: MakeRun, content: bytes | None) -> None:
        folder = make_run()
        folder.config_path.unlink()
        if content is not None:
            folder.config_path.write_bytes(content)
        assert describe(folder).state == "damaged"
        assert "run.toml" in describe(folder).reason

    def test_no_folder_at_all_is_damaged(self, tmp_path: Path) -> None:
        assert describe(RunFolder(tmp_path / "none")).state == "damaged"


class TestOtherMachines:
    """Locks of this host say nothing about a run of another one."""

    def test_another_host_is_unknown_here(self, make_run: MakeRun) -> None:
        folder = make_run()
        say(folder, "running", host="gpu-7", boot_id="other", heartbeat=time.time() - 40)
        state = describe(folder)
        assert state.state == "unknown-here"
        assert "gpu-7" in state.reason
        assert "40 s old" in state.reason

    def test_a_run_that_was_done_there_is_done(self, make_run: MakeRun) -> None:
        folder = make_run()
        say(folder, "done", host="gpu-7", boot_id="other")
        assert describe(folder).state == "done"

    def test_the_same_kernel_under_another_name_is_here(self, make_run: MakeRun) -> None:
        folder = make_run()
        say(folder, "running", host="container-2")
        assert describe(folder).state == "interrupted"

    def test_after_a_restart_of_the_machine_it_is_interrupted(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_run()
        say(folder, "running", boot_id="boot before", heartbeat=time.time() - 1000)
        monkeypatch.setattr(status, "_seconds_up", lambda: 500.0)
        state = describe(folder)
        assert state.state == "interrupted"
        assert state.reason.startswith("the machine was restarted at step 7")

    def test_a_namesake_that_beat_after_our_boot_is_another_machine(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_run()
        say(folder, "running", boot_id="another boot", heartbeat=time.time() - 100)
        monkeypatch.setattr(status, "_seconds_up", lambda: 500.0)
        assert describe(folder).state == "unknown-here"


def test_a_run_that_starts_between_two_looks_is_not_called_interrupted(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run()
    say(folder, "running")
    answers = iter([False, False, True, True])
    monkeypatch.setattr(status, "is_held", lambda path: next(answers))
    assert describe(folder).state == "running"


def test_locks_are_looked_at_before_the_status(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run writes its last phase and then lets go: looking the other way round would call it killed."""
    folder = make_run()
    say(folder, "running")

    def ends_meanwhile(path: Path) -> bool:
        say(folder, "done")
        return False

    monkeypatch.setattr(status, "is_held", ends_meanwhile)
    assert describe(folder).state == "done"
