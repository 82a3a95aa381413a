"""A workspace is private, found like a git repository, and never shows half of a thing."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

import pytest

from workbench.errors import NameTaken, NotFound, ReadOnly, UsageError, WorkbenchError
from workbench.workspace import Workspace, check_name, init, open_workspace


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestMaking:
    def test_a_new_workspace_is_private_and_opens(self, tmp_path: Path) -> None:
        made = init(tmp_path / "a" / "ws")
        assert mode(made.root) == 0o700
        assert mode(made.root / "workspace.toml") == 0o600
        assert all(
            mode(made.folder(kind)) == 0o700 for kind in ("datasets", "pairs", "prefs", "runs", "arena", "blobs")
        )
        assert open_workspace(made.root) == made
        assert made.read_only_reason == ""

    def test_a_workspace_is_not_made_twice(self, workspace: Workspace) -> None:
        with pytest.raises(NameTaken, match="is a workspace already"):
            init(workspace.root)

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(NameTaken, match="is a file"):
            init(tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_folder_with_files_keeps_its_mode(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        (tmp_path / "notes.txt").write_text("mine")
        made = init(tmp_path)
        assert mode(tmp_path) == 0o755
        assert mode(made.datasets) == 0o700

    def test_a_folder_others_can_write_to_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        tmp_path.chmod(0o777)
        with pytest.raises(WorkbenchError, match="can be written by others"):
            init(tmp_path)


class TestFinding:
    def test_upward_from_the_current_folder(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        inside = workspace.datasets
        monkeypatch.delenv("WORKBENCH_WORKSPACE", raising=False)
        monkeypatch.chdir(inside)
        assert open_workspace().root == workspace.root

    def test_by_the_environment(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("WORKBENCH_WORKSPACE", str(workspace.root))
        assert open_workspace().id == workspace.id

    def test_nothing_is_made_silently(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORKBENCH_WORKSPACE", raising=False)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(NotFound, match="workbench init"):
            open_workspace()
        with pytest.raises(NotFound, match="workbench init"):
            open_workspace(tmp_path / "nowhere")
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_marker_is_named(self, workspace: Workspace) -> None:
        (workspace.root / "workspace.toml").write_text("schema = ")
        with pytest.raises(WorkbenchError, match=r"workspace\.toml: not readable as TOML"):
            open_workspace(workspace.root)


class TestReadOnly:
    @pytest.mark.parametrize("folder", [".", "pairs"])
    def test_where_others_can_write(self, workspace: Workspace, folder: str) -> None:
        (workspace.root / folder).chmod(0o770)
        found = open_workspace(workspace.root)
        assert "chmod go-w" in found.read_only_reason
        with pytest.raises(ReadOnly, match="can be written by others"), found.new_folder("datasets", "x"):
            pass

    def test_where_the_format_is_newer(self, workspace: Workspace) -> None:
        (workspace.root / "workspace.toml").write_text('schema = 99\nid = "x"\n')
        with pytest.raises(ReadOnly, match="version 99"):
            open_workspace(workspace.root).require_writable()

    def test_where_it_belongs_to_someone_else(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)
        assert "belongs to uid" in open_workspace(workspace.root).read_only_reason


class TestNames:
    @pytest.mark.parametrize("name", ["a", "hh-harmless_2.jsonl", "0", "x" * 64])
    def test_allowed(self, name: str) -> None:
        assert check_name(name, "dataset") == name

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "a/b", "../x", "a..b", "-x", ".hidden", "x" * 65, "a\n", "a b", "é", "a\x1b[2J", "a\0b"]
    )
    def test_refused_with_what_is_allowed(self, name: str) -> None:
        with pytest.raises(UsageError, match="letters, digits"):
            check_name(name, "dataset")

    def test_words_fit_the_noun(self, workspace: Workspace) -> None:
        with pytest.raises(UsageError, match="name an arena:"):
            check_name("../x", "arena")
        with pytest.raises(NotFound, match=r"no workspace at \S+: it has no"):  # no word of --workspace from Python
            open_workspace(workspace.root / "nothing")

    def test_datasets_and_preference_sets_share_their_names(self, workspace: Workspace) -> None:
        with workspace.new_folder("prefs", "x"):
            pass
        with pytest.raises(NameTaken, match="taken by a preference set"), workspace.new_folder("datasets", "x"):
            pass
        with workspace.new_folder("pairs", "x"):
            pass

    def test_an_unknown_name_says_what_there_is(self, workspace: Workspace) -> None:
        with workspace.new_folder("datasets", "here"):
            pass
        with pytest.raises(NotFound, match="There are: here"):
            workspace.existing("datasets", "there")
        for number in range(12):
            with workspace.new_folder("datasets", f"one{number}"):
                pass
        with pytest.raises(NotFound, match=r"one6 and 3 more\.$"):
            workspace.existing("datasets", "there")


class TestNewFolders:
    def test_a_failure_leaves_nothing(self, workspace: Workspace) -> None:
        def half_way() -> None:
            with workspace.new_folder("datasets", "x") as folder:
                (folder / "half").write_text("half")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            half_way()
        assert list(workspace.datasets.iterdir()) == []

    def test_nothing_is_visible_before_the_end_and_all_is_private_after(self, workspace: Workspace) -> None:
        with workspace.new_folder("datasets", "x") as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "data").write_text("data")
            (folder / "inner" / "data").chmod(0o644)
            assert workspace.names("datasets") == []
            inode = folder.stat().st_ino
        assert (workspace.datasets / "x").stat().st_ino == inode  # renamed in one step, not copied
        assert workspace.names("datasets") == ["x"]
        assert mode(workspace.datasets / "x" / "inner" / "data") == 0o600
        assert [entry.name for entry in workspace.datasets.iterdir()] == ["x"]

    def test_what_a_killed_process_left_is_swept_and_a_living_one_is_spared(self, workspace: Workspace) -> None:
        dead, alive = workspace.datasets / ".new-dead-00", workspace.datasets / ".new-alive-00"
        dead.mkdir()
        (dead / "half").write_text("half")
        alive.mkdir()
        lock = os.open(alive, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with workspace.new_folder("datasets", "x"):
                pass
        finally:
            os.close(lock)
        assert not dead.exists()
        assert alive.exists()

    def test_a_name_taken_in_the_meantime_is_not_replaced(self, workspace: Workspace) -> None:
        def overtaken() -> None:
            with workspace.new_folder("datasets", "x"):
                (workspace.datasets / "x").mkdir()
                (workspace.datasets / "x" / "other").write_text("other")

        with pytest.raises(NameTaken):
            overtaken()
        assert (workspace.datasets / "x" / "other").read_text() == "other"

    def test_paths_inside_are_relative_so_a_moved_workspace_resolves_them(self, workspace: Workspace) -> None:
        written = workspace.relative(workspace.datasets / "x" / "data.parquet")
        assert written == "datasets/x/data.parquet"
        assert workspace.relative(Path("/elsewhere/file")) == "/elsewhere/file"
        moved = Path(shutil.move(workspace.root, workspace.root.with_name("moved")))
        assert open_workspace(moved).resolve(written) == moved / "datasets/x/data.parquet"
