"""A lock is held while its holder, or a child that inherited it, lives; asking disturbs nobody."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.errors import RunFolderError
from engine.run import locks
from engine.run.locks import excludes, hold, holders, host_lock_path, is_held

ROOT = Path(__file__).resolve().parents[3]
HOLDER = (
    "import sys, time; from pathlib import Path\n"
    "from engine.run.locks import hold\n"
    "lock = hold(Path(sys.argv[1]))\n"
    "print('held' if lock else 'refused', flush=True)\n"
    "time.sleep(300 if lock else 0)\n"
)


def start_holder(path: Path) -> tuple[subprocess.Popen[str], str]:
    """Another process that takes the lock, and what it says."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_it_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not is_held(path)
    assert not path.exists(), "asking must not make the file"
    lock = hold(path)
    assert lock is not None
    assert is_held(path)
    assert hold(path) is None
    process, answer = start_holder(path)
    end(process)
    assert answer == "refused"
    lock.release()
    lock.release()
    assert not is_held(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_kill_9_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    for _ in range(3):
        process, answer = start_holder(path)
        assert answer == "held"
        assert is_held(path)
        assert holders(path) == [process.pid]
        end(process)
        assert not is_held(path)
        assert holders(path) == []


@pytest.mark.parametrize("inheritable", [True, False])
def test_a_child_holds_on_only_where_the_lock_is_inheritable(tmp_path: Path, inheritable: bool) -> None:
    path = tmp_path / "a.lock"
    lock = hold(path, inheritable=inheritable)
    assert lock is not None
    child = subprocess.Popen(["sleep", "300"], close_fds=False)
    lock.release()
    assert is_held(path) == inheritable
    child.kill()
    child.wait()
    assert not is_held(path)


def test_askers_do_not_see_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    with open(path, "rb") as other_asker:
        fcntl.flock(other_asker, fcntl.LOCK_SH)
        assert not is_held(path)


def test_an_asker_does_not_keep_a_starter_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    monkeypatch.setattr(locks, "_ASKER_PATIENCE_S", 30.0)
    asker = os.open(path, os.O_RDONLY)
    fcntl.flock(asker, fcntl.LOCK_SH)
    leaving = threading.Timer(0.05, os.close, [asker])
    leaving.start()
    lock = hold(path)
    leaving.join()
    assert lock is not None
    lock.release()


class TestWhereFlockDoesNotExclude:
    """The lock file then says where the true lock lies, on this host."""

    @pytest.fixture
    def broken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder whose filesystem cannot lock, and a host folder that can."""
        host, broken = tmp_path / "host", tmp_path / "broken"
        host.mkdir()
        broken.mkdir()
        monkeypatch.setattr(locks, "HOST_FOLDERS", (tmp_path / "missing", host))
        monkeypatch.setattr(locks, "excludes", lambda folder: folder != broken)
        return broken

    def test_the_lock_lies_in_the_host_folder(self, broken: Path, tmp_path: Path) -> None:
        path = broken / "a.lock"
        lock = hold(path)
        assert lock is not None
        assert str(host_lock_path(path)) in path.read_text()
        assert host_lock_path(path).parent.parent == tmp_path / "host"
        assert host_lock_path(path).parent.stat().st_mode & 0o777 == 0o700
        assert is_held(path)
        assert hold(path) is None
        assert holders(path) == [os.getpid()]
        lock.release()
        assert not is_held(path)

    def test_a_pointer_is_forgotten_where_locks_work_again(self, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = broken / "a.lock"
        first = hold(path)
        assert first is not None
        first.release()
        monkeypatch.setattr(locks, "excludes", lambda folder: True)
        lock = hold(path)
        assert lock is not None
        assert path.read_bytes() == b""
        assert is_held(path)
        lock.release()

    def test_a_pointer_to_anywhere_else_is_not_followed(self, broken: Path, tmp_path: Path) -> None:
        path = broken / "a.lock"
        elsewhere = tmp_path / "elsewhere.lock"
        lock = hold(elsewhere)
        assert lock is not None
        path.write_text(f"workbench-lock-at {elsewhere}\n")
        assert not is_held(path)
        lock.release()

    def test_without_any_folder_it_says_so(self, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locks, "HOST_FOLDERS", ())
        with pytest.raises(RunFolderError, match="locks do not work on this filesystem"):
            hold(broken / "a.lock")


class TestProbe:
    """Whether a filesystem's flock works is found out with two processes."""

    def test_a_local_disk_works_and_nothing_is_left(self, tmp_path: Path) -> None:
        locks._probed.clear()
        assert excludes(tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert list(locks._probed.values()) == [True]

    def test_a_filesystem_where_locks_do_nothing_is_found_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "_CHILD", "print('free', flush=True); import sys; sys.stdin.read()")
        assert not locks._probe(tmp_path)

    def test_a_filesystem_where_children_do_not_inherit_is_found_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drop = "import os, fcntl, sys\nos.closerange(3, 64)\nprint('held', flush=True)\nsys.stdin.read()"
        monkeypatch.setattr(locks, "_CHILD", drop)
        assert not locks._probe(tmp_path)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RunFolderError, match="no regular file"):
        hold(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(RunFolderError):
        hold(tmp_path / "link")
    assert not (tmp_path / "target").exists()
