"""A dataset is added whole or not at all, read only from the recorded file, and its dirt is kept and counted."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from engine.run.safe_text import safe
from workbench import dataset_intake, dataset_store
from workbench.dataset_store import add_dataset, default_name, list_datasets, open_dataset
from workbench.errors import DiskFull, NameTaken, NotFound, SourceChanged, UnreadableData, UsageError
from workbench.workspace import Workspace, open_workspace

PAIRS = [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(5)]


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def aged(path: Path) -> Path:
    """The file as if it had been written long ago, as far as mtime goes."""
    os.utime(path, ns=(10**18, 10**18))
    return path


class TestAdding:
    def test_it_says_shape_why_and_counts(self, workspace: Workspace, tmp_path: Path) -> None:
        rows = [
            *PAIRS,
            {"prompt": "q", "chosen": "same", "rejected": "same"},
            {"prompt": "q", "chosen": "", "rejected": "x"},
        ]
        added = add_dataset(workspace, jsonl(tmp_path / "my pairs.jsonl", rows))
        assert (added.name, added.shape, added.info.rows) == ("my-pairs", "preference", 5)
        assert "'prompt', 'chosen' and 'rejected'" in added.info.recognition.why
        assert added.info.rejected == {"chosen equals rejected": 1, "empty answer": 1}
        assert [(r.place, r.reason) for r in added.rejected_rows()] == [
            ("line 6", "chosen equals rejected"),
            ("line 7", "empty answer"),
        ]
        assert "same" in next(added.rejected_rows()).excerpt
        assert [row["id"] for row in added.rows()] == [f"my-pairs:{n}" for n in range(1, 6)]
        assert open_dataset(workspace, "my-pairs") == added
        assert list_datasets(workspace) == ([added], [])

    def test_the_rows_of_every_format_are_the_same(self, workspace: Workspace, tmp_path: Path) -> None:
        jsonl(tmp_path / "a.jsonl", PAIRS)
        (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
        (tmp_path / "c.json").write_bytes(orjson.dumps(PAIRS))
        cells = "".join(f"{row['prompt']},{row['chosen']},{row['rejected']}\n" for row in PAIRS)
        (tmp_path / "d.csv").write_text("prompt,chosen,rejected\n" + cells)
        seen = []
        for name in ("a.jsonl", "b.jsonl.gz", "c.json", "d.csv"):
            rows = add_dataset(workspace, tmp_path / name).rows()
            seen.append([{key: value for key, value in row.items() if key != "id"} for row in rows])
        assert seen[0] == seen[1] == seen[2] == seen[3]
        assert len(seen[0]) == 5

    def test_progress_is_reported(self, workspace: Workspace, tmp_path: Path) -> None:
        said: list[int] = []
        path = jsonl(tmp_path / "t.jsonl", [{"text": str(n)} for n in range(2500)])
        add_dataset(workspace, path, progress=said.append)
        assert said == [0, 1000, 2000]  # 0 while the file is hashed

    def test_escape_sequences_are_stored_exactly_and_shown_safely(self, workspace: Workspace, tmp_path: Path) -> None:
        evil = "\x1b]0;own\x07\x1b[2J\u202e\u200b\x9b"
        row = {"prompt": evil + "q", "completion": evil + "r", evil: evil}
        added = add_dataset(workspace, jsonl(tmp_path / "e.jsonl", [row]))
        (read,) = added.rows()
        assert read["prompt"][0]["content"] == evil + "q"  # type: ignore[typeddict-item,index]
        assert read["tags"] == {evil: evil}
        assert list(added.info.columns) == ["prompt", "completion", evil]
        for text in added.info.columns:
            assert safe(text).isprintable()

    def test_mixed_types_and_nulls_reject_their_rows_only(self, workspace: Workspace, tmp_path: Path) -> None:
        rows: list[dict[str, object]] = [{"text": "a"}, {"text": 1}, {"text": None}, {}, {"text": ["x"]}, {"text": "b"}]
        added = add_dataset(workspace, jsonl(tmp_path / "m.jsonl", rows))
        assert added.info.rows == 2
        assert added.info.rejected == {"missing text": 2, "text is not text": 2}

    def test_a_file_of_nothing_usable_is_refused_with_its_reasons(self, workspace: Workspace, tmp_path: Path) -> None:
        (tmp_path / "x.jsonl").write_bytes(b"{no\n{no\n")
        with pytest.raises(UnreadableData, match=r"no usable row: 2 × invalid JSON \(first: line 1"):
            add_dataset(workspace, tmp_path / "x.jsonl")
        with pytest.raises(UnreadableData, match="3 × empty answer"):
            add_dataset(workspace, jsonl(tmp_path / "y.jsonl", [{"prompt": "q", "chosen": "", "rejected": "b"}] * 3))
        assert list(workspace.datasets.iterdir()) == []

    def test_only_so_many_rejected_rows_are_kept_but_all_counted(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dataset_intake, "MAX_REJECTIONS_KEPT", 3)
        added = add_dataset(workspace, jsonl(tmp_path / "r.jsonl", [{"text": "a"}, *[{"text": ""}] * 9]))
        assert (len(list(added.rejected_rows())), added.info.rejected) == (3, {"empty text": 9})


class TestNames:
    @pytest.mark.parametrize("name", ["a/b", "..", "../x", ""])
    def test_a_bad_name_is_refused_before_anything_is_read(self, workspace: Workspace, name: str) -> None:
        with pytest.raises((UsageError, UnreadableData)):
            add_dataset(workspace, "/nonexistent" if name else "...", name)

    def test_an_occupied_name_is_refused_and_kept(self, workspace: Workspace, tmp_path: Path) -> None:
        path = jsonl(tmp_path / "a.jsonl", [{"text": "first"}])
        first = add_dataset(workspace, path, "x")
        with pytest.raises(NameTaken, match="nothing is overwritten"):
            add_dataset(workspace, path, "x")
        assert open_dataset(workspace, "x") == first

    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ("/d/hh_harmless.jsonl.gz", "hh_harmless"),
            ("hf:Anthropic/hh-rlhf:default:test", "hh-rlhf"),
            ("/d/my data (1).v2.csv", "my-data-1-v2"),
            ("/d/été.json", "t"),
            ("folder/", "folder"),
        ],
    )
    def test_default_names(self, source: str, name: str) -> None:
        assert default_name(source) == name

    def test_where_no_name_can_be_made(self) -> None:
        with pytest.raises(UsageError, match="--name"):
            default_name("/d/数据.jsonl")


class TestOriginals:
    def test_a_changed_original_is_named_with_both_hashes(self, workspace: Workspace, tmp_path: Path) -> None:
        path = jsonl(tmp_path / "a.jsonl", [{"text": "before"}])
        added = add_dataset(workspace, path)
        jsonl(path, [{"text": "after!"}])  # the same size
        with pytest.raises(
            SourceChanged, match=rf"sha256 now [0-9a-f]{{64}}, recorded {added.info.source.sha256}.*--copy"
        ):
            list(added.rows())
        jsonl(path, [{"text": "longer than before"}])
        with pytest.raises(SourceChanged):
            list(added.rows())

    def test_a_touched_original_is_hashed_and_accepted(self, workspace: Workspace, tmp_path: Path) -> None:
        path = jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
        added = add_dataset(workspace, path)
        aged(path)
        assert len(list(added.rows())) == 1
        added.verify()

    def test_an_unchanged_stat_is_not_hashed_again_unless_it_was_taken_too_soon(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from workbench import dataset_source

        added = add_dataset(workspace, jsonl(tmp_path / "a.jsonl", [{"text": "x"}]))
        hashed: list[Path] = []
        original = dataset_source.sha256_of
        count = lambda path, *told: hashed.append(path) or original(path, *told)  # noqa: E731
        monkeypatch.setattr(dataset_source, "sha256_of", count)
        list(added.rows())
        assert len(hashed) == 1  # the file was written within two seconds of being recorded
        monkeypatch.setattr(dataset_source, "_RACY_NS", -1)
        list(added.rows())
        assert len(hashed) == 1
        added.verify()
        assert len(hashed) == 2

    def test_a_missing_original_says_what_to_do(self, workspace: Workspace, tmp_path: Path) -> None:
        path = jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
        added = add_dataset(workspace, path)
        path.unlink()
        with pytest.raises(UnreadableData, match=r"Put it back.*--copy"):
            list(added.rows())

    def test_a_copy_survives_the_original_and_a_move(self, workspace: Workspace, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"text":"x"}\n'))
        add_dataset(workspace, path, "c", copy=True)
        path.unlink()
        moved = open_workspace(Path(shutil.move(workspace.root, tmp_path / "elsewhere")))
        found = open_dataset(moved, "c")
        assert [row["text"] for row in found.rows()] == ["x"]  # type: ignore[typeddict-item]
        assert found.info.source.path == "datasets/c/original.jsonl.gz"

    def test_a_file_inside_the_workspace_moves_with_it(self, workspace: Workspace, tmp_path: Path) -> None:
        add_dataset(workspace, jsonl(workspace.root / "mine.jsonl", [{"text": "x"}]))
        moved = open_workspace(Path(shutil.move(workspace.root, tmp_path / "elsewhere")))
        assert len(list(open_dataset(moved, "mine").rows())) == 1


class TestFaults:
    def test_a_full_disk_leaves_nothing_and_names_the_space(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(dataset_store, "copy_bytes", full)
        with pytest.raises(DiskFull, match=r"no space left while making dataset a: \d+ MB free"):
            add_dataset(workspace, jsonl(tmp_path / "a.jsonl", [{"text": "x"}]), copy=True)
        assert list(workspace.datasets.iterdir()) == []

    def test_a_real_file_size_limit_leaves_nothing(self, workspace: Workspace, tmp_path: Path) -> None:
        path = jsonl(tmp_path / "a.jsonl", [{"text": "x" * 1000}] * 500)
        program = (
            "import resource, signal, sys\n"
            "from workbench.dataset_store import add_dataset\nfrom workbench.errors import DiskFull\n"
            "from workbench.workspace import open_workspace\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "try: add_dataset(open_workspace(sys.argv[1]), sys.argv[2], copy=True)\n"
            "except DiskFull as error: print(error); sys.exit(7)\n"
        )
        call = [sys.executable, "-c", program, str(workspace.root), str(path)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (7, "")
        assert "MB free" in done.stdout
        assert list(workspace.datasets.iterdir()) == []

    def test_a_damaged_dataset_does_not_hide_the_others(self, workspace: Workspace, tmp_path: Path) -> None:
        path = jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
        for name in ("one", "two", "three"):
            add_dataset(workspace, path, name)
        (workspace.datasets / "one" / "dataset.toml").write_text("= torn")
        (workspace.datasets / "three" / "dataset.toml").write_text("schema = 1\n")
        found, problems = list_datasets(workspace)
        assert [dataset.name for dataset in found] == ["two"]
        assert len(problems) == 2
        (workspace.datasets / "one" / "dataset.toml").unlink()
        with pytest.raises(NotFound, match="is missing"):
            open_dataset(workspace, "one")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_a_large_file_is_read_in_bounded_memory(workspace: Workspace, tmp_path: Path) -> None:
    """120 MB of JSON lines; the child's peak must stay far below the file."""
    path = tmp_path / "large.jsonl"
    line = orjson.dumps({"text": "word " * 2000}) + b"\n"
    with open(path, "wb") as file:
        for _ in range(12):
            file.write(line * 1000)
    program = (
        "import re, sys\nfrom workbench.dataset_store import add_dataset\n"
        "from workbench.workspace import open_workspace\n"
        "d = add_dataset(open_workspace(sys.argv[1]), sys.argv[2])\n"
        "n = sum(1 for _ in d.rows())\n"
        "print(n, int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1000)\n"
    )
    call = [sys.executable, "-c", program, str(workspace.root), str(path)]
    rows, peak_mb = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
    assert int(rows) == 12_000
    assert int(peak_mb) < 100


def test_a_folder_is_refused_before_a_name_is_asked_for(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.datasets)
    with pytest.raises(UnreadableData, match="is a folder, not a dataset saved by `datasets`"):
        add_dataset(workspace, "..")
