"""Nothing that a kill, a full disk or a second writer does tears a file."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from engine.errors import RunFolderError
from engine.run.durable_files import (
    append_line,
    disk_faults_named,
    encode_line,
    free_megabytes,
    open_for_append,
    read_json_object,
    read_jsonl,
    write_atomically,
)
from tests.engine.run.run_processes import wait_until


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Every file that this process writes is "full" at `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestWriteAtomically:
    """The old file or the new one."""

    @pytest.mark.parametrize("durable", [True, False])
    def test_it_replaces_and_is_private(self, tmp_path: Path, durable: bool) -> None:
        path = tmp_path / "a.json"
        write_atomically(path, b"old", durable=durable)
        write_atomically(path, b"new", durable=durable)
        assert path.read_bytes() == b"new"
        assert path.stat().st_mode & 0o777 == 0o600
        assert os.listdir(tmp_path) == ["a.json"]

    def test_a_full_disk_leaves_the_old_file_and_no_rest(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        write_atomically(path, b"old")
        with file_size_limit(1000), pytest.raises(OSError) as caught:
            write_atomically(path, b"x" * 5000)
        assert caught.value.errno == errno.EFBIG
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["a.json"]

    @pytest.mark.parametrize("call", ["fsync", "replace", "write"])
    def test_a_fault_in_any_call_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        path = tmp_path / "a.json"
        write_atomically(path, b"old")

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with (
                pytest.raises(RunFolderError, match=r"no space left for .*: \d+ MB are free there\. .*free some space"),
                disk_faults_named("saving", path),
            ):
                write_atomically(path, b"new")
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["a.json"]

    def test_a_reader_never_sees_a_part_while_a_writer_is_killed(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        program = (
            "import sys; from pathlib import Path\n"
            "from engine.run.durable_files import write_atomically\n"
            "n = 0\n"
            "while True:\n"
            "    write_atomically(Path(sys.argv[1]), (str(n % 10) * 200_000).encode(), durable=False); n += 1\n"
        )
        root = Path(__file__).resolve().parents[3]
        for _ in range(3):
            writer = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=root)
            wait_until(path.exists, "the first write")
            for _ in range(40):
                content = path.read_bytes()
                assert len(content) == 200_000
                assert len(set(content)) == 1
            writer.kill()
            writer.wait()


class TestAppendLine:
    """A whole line, or a torn tail that the next line closes."""

    def test_lines_are_appended_and_private(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        append_line(path, b'{"n":1}')
        append_line(path, b'{"n":2}', durable=True)
        assert path.read_bytes() == b'{"n":1}\n{"n":2}\n'
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_torn_tail_costs_only_itself(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"n":1}\n{"n":2')
        append_line(path, b'{"n":3}')
        lines = read_jsonl(path)
        assert list(lines) == [(1, {"n": 1}), (3, {"n": 3})]
        assert lines.malformed == [2]
        assert not lines.torn

    def test_a_short_write_is_an_error_and_is_repaired(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        descriptor = open_for_append(path)
        append_line(descriptor, b'{"n":1}')
        with file_size_limit(12), pytest.raises(OSError, match="4 of 8 bytes"):
            append_line(descriptor, b'{"n":2}')
        lines = read_jsonl(path)
        assert list(lines) == [(1, {"n": 1})]
        assert lines.torn
        append_line(descriptor, b'{"n":3}')
        os.close(descriptor)
        assert [row["n"] for _, row in read_jsonl(path)] == [1, 3]

    def test_a_newline_inside_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="one line"):
            append_line(tmp_path / "a", b"a\nb")

    def test_many_writers_lose_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        program = (
            "import sys; from pathlib import Path\n"
            "from engine.run.durable_files import append_line, encode_line\n"
            "for n in range(200):\n"
            "    append_line(Path(sys.argv[1]), encode_line({'w': sys.argv[2], 'n': n, 'x': 'y' * 9000}))\n"
        )
        root = Path(__file__).resolve().parents[3]
        writers = [subprocess.Popen([sys.executable, "-c", program, str(path), str(w)], cwd=root) for w in range(3)]
        assert [writer.wait() for writer in writers] == [0, 0, 0]
        lines = read_jsonl(path)
        seen = [(row["w"], row["n"]) for _, row in lines]
        assert sorted(seen) == sorted((str(w), n) for w in range(3) for n in range(200))
        assert lines.malformed == []


class TestReading:
    """Readers bear everything but a file that cannot be opened."""

    def test_what_is_no_object_is_skipped_and_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'\n{"a":1}\n[1]\n\xff\xfe\n"text"\n{"b":2}\n  \n{"c"')
        lines = read_jsonl(path)
        assert [row for _, row in lines] == [{"a": 1}, {"b": 2}]
        assert lines.malformed == [3, 4, 5]
        assert lines.torn

    def test_a_last_line_without_newline_that_is_whole_counts(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b'{"a":1}')
        assert list(read_jsonl(tmp_path / "a")) == [(1, {"a": 1})]

    def test_a_missing_file_has_no_lines(self, tmp_path: Path) -> None:
        assert list(read_jsonl(tmp_path / "none")) == []
        assert read_json_object(tmp_path / "none") is None

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'"x"'])
    def test_a_small_file_that_is_no_object_is_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a").write_bytes(content)
        assert read_json_object(tmp_path / "a") is None


def test_what_json_cannot_hold_is_made_to_fit() -> None:
    line = encode_line({"a\ud800": "x\udfff", "n": 2**70, "p": Path("/x"), "deep": [{"k": ("\udc80", None, True)}]})
    assert orjson.loads(line) == {
        "a\ufffd": "x\ufffd", "n": float(2**70), "p": "/x", "deep": [{"k": ["\ufffd", None, True]}],
    }  # fmt: skip
    assert b"\n" not in encode_line({"a": "x\ny"})


def test_a_disk_fault_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"cannot be written .* Give this account the right"), \
            disk_faults_named("saving", tmp_path / "a"):  # fmt: skip
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(RunFolderError, match=r"saving: .*: Input/output error"), disk_faults_named("saving", tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_free_space_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    assert free_megabytes(tmp_path / "not" / "there") == pytest.approx(free_megabytes(tmp_path), rel=0.05)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB, where this account may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip("this account may not mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_disk_that_is_truly_full_nothing_is_torn(tiny_disk: Path) -> None:
    path, log = tiny_disk / "status.json", tiny_disk / "log.jsonl"
    write_atomically(path, b"old")
    written: list[int] = []

    def fill() -> None:
        with disk_faults_named("writing", log):
            for n in itertools.count():
                append_line(log, b'{"x":"' + b"y" * 3000 + b'"}')
                written.append(n)

    with pytest.raises(RunFolderError, match=r"no space left for .*: 0 MB are free"):
        fill()
    with pytest.raises(RunFolderError, match="0 MB are free"), disk_faults_named("writing", path):
        write_atomically(path, b"z" * 5000)
    assert path.read_bytes() == b"old"
    lines = read_jsonl(log)
    assert len(list(lines)) == len(written)
    assert sorted(os.listdir(tiny_disk)) == ["log.jsonl", "status.json"]
