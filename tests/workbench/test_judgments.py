"""The journal loses nothing and doubles nothing, and what holds follows from supersession alone."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import DiskFull, UsageError, WorkbenchError
from workbench.judgment_lines import Judgment, annotator_of, encode, read_journal
from workbench.judgments import Journal, Showing, read_judgments


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()]


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("*.jsonl")
    return path


def verdicts(folder: Path) -> dict[str, str]:
    return {showing.pair: judgment.verdict for showing, judgment in read_judgments(folder).current.items()}


class TestAppending:
    def test_a_line_says_everything_and_carries_its_checksum(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            made = journal.append("p1", "a", origin="typed", strength=2, order="ba", comment="clear\n\x1b[2J")
        (line,) = lines_of(tmp_path)
        stated = line.pop("sum")
        assert stated == f"{zlib.crc32(orjson.dumps(line, option=orjson.OPT_SORT_KEYS)):08x}"
        assert line.keys() == {"schema", *Judgment._fields} - Judgment._field_defaults.keys()
        assert {"schema": 1, **made._asdict()}.items() >= line.items()
        assert (line["seq"], line["supersedes"], line["repeat"], line["criterion"]) == (1, None, 0, "overall")
        assert stat.S_IMODE(the_file(tmp_path).stat().st_mode) == 0o600
        assert annotator_of(the_file(tmp_path).name) == "alice"

    def test_a_line_that_says_more_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            made = journal.append("p1", "a", origin="screen", repeat=1, purpose="repeat", picked="random")
            with pytest.raises(UsageError, match="no purpose"):
                journal.append("p1", "a", origin="screen", purpose="fun")
        assert read_journal(the_file(tmp_path)).lines == ((1, made),)
        said = read_judgments(tmp_path)
        assert (said.judged_pairs, said.first) == (set(), [])

    def test_one_write_and_one_sync_and_only_then_it_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from workbench import judgments

        done: list[str] = []
        write = os.write
        with Journal(tmp_path, "alice") as journal:
            monkeypatch.setattr(os, "write", lambda fd, data: done.append("write") or write(fd, data))
            monkeypatch.setattr(judgments, "_sync_data", lambda fd: done.append("sync"))
            journal.append("p1", "a", origin="typed")
            journal.append_many(journal.prepare(f"p{n}", "b", origin="rule") for n in range(100))
        assert done == ["write", "sync"] * 2
        assert [line["seq"] for line in lines_of(tmp_path)] == list(range(1, 102))

    def test_a_later_verdict_supersedes_the_earlier_in_its_showing_only(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            first = journal.append("p1", "a", origin="typed")
            second = journal.append("p1", "b", origin="typed")
            repeat = journal.append("p1", "tie", origin="typed", repeat=1)
            honest = journal.append("p1", "skip", origin="typed", criterion="honest")
        assert second.supersedes == first.id
        assert repeat.supersedes is honest.supersedes is None
        current = read_judgments(tmp_path).current
        assert {(s.repeat, s.criterion): j.verdict for s, j in current.items()} == {
            (0, "overall"): "b",
            (1, "overall"): "tie",
            (0, "honest"): "skip",
        }

    def test_twice_in_one_batch(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            journal.append_many([journal.prepare("p1", "a", origin="rule"), journal.prepare("p1", "b", origin="rule")])
        assert verdicts(tmp_path) == {"p1": "b"}

    def test_the_clock_is_never_asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from workbench import judgments

        with Journal(tmp_path, "alice") as journal:
            journal.append("p1", "a", origin="typed")
            monkeypatch.setattr(judgments, "now", lambda: "1999-01-01T00:00:00+00:00")
            journal.append("p1", "b", origin="typed")
        assert verdicts(tmp_path) == {"p1": "b"}

    @pytest.mark.parametrize("verdict", ["undone", "A", "", "left"])
    def test_what_is_no_verdict_is_refused(self, tmp_path: Path, verdict: str) -> None:
        with Journal(tmp_path, "alice") as journal, pytest.raises(UsageError, match="not a verdict"):
            journal.append("p1", verdict, origin="typed")  # type: ignore[arg-type]
        assert lines_of(tmp_path) == []

    @pytest.mark.parametrize("name", ["", "a/b", "..", "a b"])
    def test_a_bad_annotator_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match="annotator"):
            Journal(tmp_path, name)

    def test_a_comment_that_is_not_unicode_is_refused_and_nothing_is_written(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            with pytest.raises(UsageError, match="Unicode"):
                journal.append("p1", "a", origin="typed", comment="\ud800")
            journal.append("p1", "b", origin="typed")
        assert [line["seq"] for line in lines_of(tmp_path)] == [1]


class TestUndo:
    def test_undo_opens_the_showing_and_a_new_verdict_closes_it(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            journal.append("p1", "a", origin="typed")
            undone = journal.undo(Showing("p1", "alice"))
            said = read_judgments(tmp_path)
            assert (said.current, said.undone, said.stands(Showing("p1", "alice"))) == ({}, 1, False)
            again = journal.append("p1", "b", origin="typed")
        assert again.supersedes == undone.id
        assert verdicts(tmp_path) == {"p1": "b"}
        assert len(lines_of(tmp_path)) == 3

    def test_nothing_to_undo(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            with pytest.raises(UsageError, match="no verdict on pair p1"):
                journal.undo(Showing("p1", "alice"))
            journal.append("p1", "a", origin="typed")
            journal.undo(Showing("p1", "alice"))
            with pytest.raises(UsageError, match="no verdict on pair p1"):
                journal.undo(Showing("p1", "alice"))

    def test_across_sittings(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            journal.append("p1", "a", origin="typed")
        with Journal(tmp_path, "alice", fresh=True) as journal:
            journal.undo(Showing("p1", "alice"))
        assert verdicts(tmp_path) == {}
        assert len(list(tmp_path.glob("*.jsonl"))) == 2


class TestOwnership:
    def test_a_free_journal_is_continued_and_a_held_one_is_not(self, tmp_path: Path) -> None:
        alice, bob = "alice", "bob"
        with Journal(tmp_path, alice) as first, Journal(tmp_path, alice) as second, Journal(tmp_path, bob) as other:
            assert len({first.path, second.path, other.path}) == 3
        with Journal(tmp_path, "alice") as again:
            assert again.path in (first.path, second.path)
            assert again.append("p", "a", origin="typed").seq == 1

    def test_two_programs_of_one_name_that_disagree_are_a_conflict_until_resolved(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as first, Journal(tmp_path, "alice") as second:
            first.append("p1", "a", origin="typed")
            second.append("p1", "b", origin="typed")
            first.append("p2", "tie", origin="typed")
            second.append("p2", "tie", origin="typed")
        said = read_judgments(tmp_path)
        assert list(said.conflicts) == [Showing("p1", "alice")]
        assert verdicts(tmp_path) == {"p2": "tie"}
        with Journal(tmp_path, "alice") as journal:
            journal.append("p1", "b", origin="typed")
        assert read_judgments(tmp_path).conflicts == {}
        assert verdicts(tmp_path) == {"p1": "b", "p2": "tie"}

    def test_a_closed_journal_takes_nothing(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path, "alice")
        journal.close()
        with pytest.raises(WorkbenchError, match="is closed"):
            journal.append("p", "a", origin="typed")


class TestFaults:
    def test_each_bad_line_is_named_and_kept_and_the_rest_counts(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            for number in range(4):
                journal.append(f"p{number}", "a", origin="typed")
        path = the_file(tmp_path)
        good = path.read_bytes().splitlines(keepends=True)
        forged = good[1].replace(b'"verdict":"a"', b'"verdict":"b"')
        bob = encode(Judgment(1, "x", None, "p9", "bob", 0, "overall", "a", 1, "", "typed", "", ""))
        newer = b'{"schema":7,"id":"y"}\n'
        content = b"".join(
            [good[0], forged, b"{nonsense\n", b'{"a":1}\n', good[0], bob, newer, b"\n", good[2], good[3][:40]]
        )
        path.write_bytes(content)
        said = read_judgments(tmp_path)
        assert [(fault.line, fault.cause) for fault in said.faults] == [
            (2, "checksum"),
            (3, "not JSON"),
            (4, "foreign"),
            (6, "foreign"),
            (7, "newer"),
            (10, "torn"),
            (5, "doubled"),
        ]
        assert str(said.faults[0]) == f"{path.name}:2: checksum (the line is not as it was written)"
        assert verdicts(tmp_path) == {"p0": "a", "p2": "a"}
        assert path.read_bytes() == content

    def test_a_torn_tail_is_closed_by_the_next_line_and_stays(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            journal.append("p0", "a", origin="typed")
        path = the_file(tmp_path)
        torn = b'{"schema":1,"seq":2,"id":"'
        path.write_bytes(path.read_bytes() + torn)
        with Journal(tmp_path, "alice") as journal:
            assert journal.path == path
            journal.append("p1", "b", origin="typed")
        assert verdicts(tmp_path) == {"p0": "a", "p1": "b"}
        assert [(fault.line, fault.cause) for fault in read_judgments(tmp_path).faults] == [(2, "not JSON")]
        assert torn + b"\n" in path.read_bytes()

    def test_a_whole_line_without_its_newline_counts(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            journal.append("p0", "a", origin="typed")
        path = the_file(tmp_path)
        path.write_bytes(path.read_bytes()[:-1])
        with Journal(tmp_path, "alice") as journal:
            journal.append("p1", "b", origin="typed")
        assert verdicts(tmp_path) == {"p0": "a", "p1": "b"}

    def test_a_line_cannot_supersede_into_another_showing(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            target = journal.append("p0", "a", origin="typed")
        path = the_file(tmp_path)
        intruder = target._replace(seq=2, id="other", supersedes=target.id, pair="p1")
        path.write_bytes(path.read_bytes() + encode(intruder))
        assert verdicts(tmp_path) == {"p0": "a", "p1": "a"}

    def test_a_copied_journal_doubles_nothing(self, tmp_path: Path) -> None:
        with Journal(tmp_path, "alice") as journal:
            journal.append("p0", "a", origin="typed")
        the_file(tmp_path).with_name("alice.copy.jsonl").write_bytes(the_file(tmp_path).read_bytes())
        said = read_judgments(tmp_path)
        assert (len(said.current), [fault.cause for fault in said.faults]) == (1, ["doubled"])

    def test_a_full_disk_saves_nothing_of_that_verdict(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = os.write
        with Journal(tmp_path, "alice") as journal:
            journal.append("p0", "a", origin="typed")
            before = the_file(tmp_path).read_bytes()
            monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
            with pytest.raises(DiskFull, match="MB free"):
                journal.append("p1", "a", origin="typed")
            assert the_file(tmp_path).read_bytes() == before

            def full(*_: object) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(os, "write", full)
            with pytest.raises(DiskFull, match="MB free"):
                journal.append("p1", "a", origin="typed")
            monkeypatch.setattr(os, "write", write)
            assert journal.append("p1", "b", origin="typed").seq == 2
        assert verdicts(tmp_path) == {"p0": "a", "p1": "b"}
        assert read_judgments(tmp_path).faults == ()

    def test_after_a_failed_sync_the_journal_takes_nothing_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from workbench import judgments

        def broken(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with Journal(tmp_path, "alice") as journal:
            monkeypatch.setattr(judgments, "_sync_data", broken)
            for _ in range(2):
                with pytest.raises(WorkbenchError, match="disk failed"):
                    journal.append("p1", "a", origin="typed")
        assert len(lines_of(tmp_path)) == 1


@settings(max_examples=60, deadline=None)
@given(st.text(), st.text(), st.integers(-(2**63), 2**63 - 1))
def test_any_unicode_survives_a_line(pair: str, comment: str, strength: int) -> None:
    judgment = Judgment(1, "x", None, pair, "alice", 0, "overall", "a", strength, "ab", "typed", "", comment)
    line = encode(judgment)
    assert line.count(b"\n") == 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alice.1.jsonl"
        path.write_bytes(line)
        assert read_journal(path).lines == ((1, judgment),)


SITTING = """
import os, sys
from pathlib import Path
from workbench.judgments import Journal
said = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
number = int(sys.argv[3])
with Journal(Path(sys.argv[1]), "alice") as journal:
    os.write(1, b"ready\\n")
    while True:
        journal.append(f"p{number}", "ab"[number % 2], origin="typed")
        os.write(said, b"%d\\n" % number)
        number += 1
"""


def test_kills_lose_nothing_acknowledged_and_double_nothing(tmp_path: Path) -> None:
    """20 sittings killed at odd moments; the checker below shares no code with the journal."""
    folder, acknowledged = tmp_path / "judgments", tmp_path / "acknowledged"
    for round_number in range(20):
        start = str(round_number * 1_000_000)
        call = [sys.executable, "-c", SITTING, str(folder), str(acknowledged), start]
        sitting = subprocess.Popen(call, stdout=subprocess.PIPE)
        assert sitting.stdout is not None
        assert sitting.stdout.readline() == b"ready\n"
        time.sleep(0.002 + 0.003 * round_number)  # moments, not a measure: no assertion depends on it
        sitting.send_signal(signal.SIGKILL)
        sitting.wait()
        sitting.stdout.close()
    said = [int(line) for line in acknowledged.read_bytes().split()]
    found: list[int] = []
    for file in folder.iterdir():
        for line in file.read_bytes().split(b"\n"):
            if line.startswith(b'{"schema":1') and line.endswith(b'"}'):
                found.append(int(orjson.loads(line)["pair"][1:]))
    assert len(said) > 20
    assert set(said) <= set(found)
    assert len(found) == len(set(found))
    assert len(found) - len(said) <= 20  # at most the one under way at each kill
    assert len(list(folder.iterdir())) == 1  # each sitting continued the journal that the dead one let go
