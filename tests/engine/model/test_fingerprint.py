"""Hashes of model folders: what counts, and when a remembered hash holds."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ModelError
from engine.model import fingerprint
from engine.model.fingerprint import file_sha256, folder_sha256, remembered_sha256


@pytest.fixture
def folder(tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A settled file above the size from which hashes are remembered."""
    file = tmp_path / "large"
    file.write_bytes(b"x" * (fingerprint.REMEMBERED_FROM_BYTES + 5))
    _settle(file)
    return file


def _settle(file: Path) -> None:
    then = time.time_ns() - 60_000_000_000
    os.utime(file, ns=(then, then))


class TestFolder:
    def test_content_counts_and_the_path_does_not(self, folder: Path, tmp_path: Path) -> None:
        before = folder_sha256(folder)
        assert len(before) == 64
        assert folder_sha256(Path(shutil.move(folder, tmp_path / "elsewhere"))) == before

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
    def test_every_part_counts(self, name: str, folder: Path) -> None:
        before = folder_sha256(folder)
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        assert folder_sha256(folder) != before

    def test_new_part_counts_and_a_readme_does_not(self, folder: Path) -> None:
        before = folder_sha256(folder)
        (folder / "README.md").write_text("about")
        assert folder_sha256(folder) == before
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        assert folder_sha256(folder) != before

    def test_names_count(self, folder: Path) -> None:
        before = folder_sha256(folder)
        (folder / "model.safetensors").rename(folder / "model-2.safetensors")
        assert folder_sha256(folder) != before

    def test_adapter(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text("{}")
        assert len(folder_sha256(tmp_path)) == 64

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no model here"):
            folder_sha256(tmp_path)
        with pytest.raises(ModelError, match="no model here"):
            folder_sha256(tmp_path / "none")

    def test_progress(self, folder: Path, tmp_path: Path) -> None:
        told: list[tuple[int, int]] = []
        folder_sha256(folder, tmp_path / "hashes", lambda done, total: told.append((done, total)))
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1] > 0


class TestMemory:
    def test_hash_is_not_worked_out_twice(self, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = file_sha256(large, tmp_path / "c")
        monkeypatch.setattr(fingerprint, "_hash", lambda *_: pytest.fail("hashed again"))
        assert file_sha256(large, tmp_path / "c") == first == remembered_sha256(large, tmp_path / "c")

    def test_change_is_seen(self, large: Path, tmp_path: Path) -> None:
        first = file_sha256(large, tmp_path / "c")
        size = large.stat().st_size
        large.write_bytes(b"y" * size)
        assert remembered_sha256(large, tmp_path / "c") is None
        assert file_sha256(large, tmp_path / "c") != first

    def test_another_file_in_its_place_is_seen(self, large: Path, tmp_path: Path) -> None:
        """Same size and time, another inode."""
        first = file_sha256(large, tmp_path / "c")
        found = large.stat()
        other = tmp_path / "other"
        other.write_bytes(b"z" * found.st_size)
        os.utime(other, ns=(found.st_mtime_ns, found.st_mtime_ns))
        other.replace(large)
        assert file_sha256(large, tmp_path / "c") != first

    def test_file_that_has_just_changed_is_not_remembered(self, large: Path, tmp_path: Path) -> None:
        os.utime(large)
        file_sha256(large, tmp_path / "c")
        assert remembered_sha256(large, tmp_path / "c") is None

    def test_small_files_are_not_remembered(self, tmp_path: Path) -> None:
        (tmp_path / "small").write_bytes(b"x")
        _settle(tmp_path / "small")
        file_sha256(tmp_path / "small", tmp_path / "c")
        assert not (tmp_path / "c").exists()

    @pytest.mark.parametrize("entry", [b"", b"[]", b'{"file": 3, "sha256": "x"}'])
    def test_damaged_memory_is_ignored(self, entry: bytes, large: Path, tmp_path: Path) -> None:
        first = file_sha256(large, tmp_path / "c")
        (written,) = (tmp_path / "c" / "sha256").iterdir()
        written.write_bytes(entry)
        assert file_sha256(large, tmp_path / "c") == first

    def test_cache_that_cannot_be_written(self, large: Path, tmp_path: Path) -> None:
        (tmp_path / "c").write_text("a file where the folder should be")
        assert len(file_sha256(large, tmp_path / "c")) == 64


def test_loads_nothing_heavy(run_isolated: Callable[[str], str]) -> None:
    code = "import sys, engine.model.fingerprint; print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    assert run_isolated(code) == "[]"
