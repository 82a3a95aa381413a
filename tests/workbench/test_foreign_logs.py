"""Logs of other programs: real files of TRL 1.16.0 (a DPO run of the sample model), torn, damaged and odd ones."""

from __future__ import annotations

import json
import math
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.run.event_file_writer import masked_crc32c
from workbench.errors import NotFound, UnreadableData
from workbench.event_files import EventFile, scalars_of
from workbench.foreign_logs import Rows, guess_method, open_log, our_name

FILES = Path(__file__).parent / "foreign_logs"
EVENTS = FILES / "events.out.tfevents.1796035970.host.1.0"
TENSORS = FILES / "events.out.tfevents.1796035971.host.1.0"


def record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))


def event(tag: str, step: int, value: float) -> bytes:
    """One record with a scalar, as a SummaryWriter has it."""
    inner = b"\x0a" + bytes([len(tag)]) + tag.encode() + b"\x15" + struct.pack("<f", value)
    summary = b"\x0a" + bytes([len(inner)]) + inner
    return record(
        b"\x09" + struct.pack("<d", 1e9 + step) + b"\x10" + bytes([step]) + b"\x2a" + bytes([len(summary)]) + summary
    )


def read(path: Path) -> Rows:
    log = open_log(path)
    log.read()
    return log.rows


def values(rows: Rows, name: str) -> dict[int, float]:
    return {step: row.metrics[name] for step, row in rows.items() if name in row.metrics}


class TestTrl:
    def test_both_logs_of_a_run_say_the_same(self, tmp_path: Path) -> None:
        (tmp_path / "trainer_state.json").write_bytes((FILES / "trainer_state_6.json").read_bytes())
        state, events = read(tmp_path), read(EVENTS)
        assert list(state) == list(events) == [1, 2, 3, 4, 5, 6]
        for step, row in state.items():
            for name, value in row.metrics.items():
                assert events[step].metrics[name] == pytest.approx(value, rel=1e-6), name
        assert list(values(state, "eval_rewards/margins")) == [3, 6]
        assert guess_method(name for row in state.values() for name in row.metrics) == "dpo"
        assert events[1].time == pytest.approx(1796035974.697)

    def test_the_newest_checkpoint_counts(self, tmp_path: Path) -> None:
        for step in (3, 6):
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir()
            (folder / "trainer_state.json").write_bytes((FILES / f"trainer_state_{step}.json").read_bytes())
        log = open_log(tmp_path)
        assert log.read()
        assert not log.read(), "nothing new"
        assert (max(log.rows), log.total_steps) == (6, 6)

    def test_a_number_that_json_lacks(self, tmp_path: Path) -> None:
        path = tmp_path / "trainer_state.json"
        path.write_text('{"log_history": [{"step": 1, "loss": NaN, "grad_norm": Infinity}, {"loss": 3}, 5]}')
        log = open_log(path)
        log.read()
        assert math.isnan(log.rows[1].metrics["loss"])
        assert log.rows[1].metrics["grad_norm"] == math.inf
        assert log.notes == ("2 entries of log_history have no step and were left out",)


class TestEventFiles:
    def test_the_check_sum(self) -> None:
        crc = masked_crc32c(b"123456789")  # RFC 3720: CRC-32C of these digits is e3069283
        rotated = (crc - 0xA282EAD8) & 0xFFFFFFFF
        assert ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF == 0xE3069283

    def test_scalars_as_tensors_and_nothing_else(self) -> None:
        assert values(read(TENSORS), "loss") == {0: 1.0, 1: 0.5, 2: 1 / 3}
        assert set().union(*(row.metrics for row in read(TENSORS).values())) == {"loss"}

    def test_a_file_that_grows_byte_by_byte(self, tmp_path: Path) -> None:
        content = event("train/loss", 1, 0.5) + event("train/loss", 2, 0.25)
        path = tmp_path / "events.out.tfevents.1"
        path.write_bytes(b"")
        file, found = EventFile(path), []
        for byte in content:
            with path.open("ab") as stream:
                stream.write(bytes([byte]))
            found += file.read()
        assert [(one.step, one.value) for one in found] == [(1, 0.5), (2, 0.25)]

    def test_damage_ends_the_reading_and_is_named(self, tmp_path: Path) -> None:
        first = event("loss", 1, 0.5)
        damaged = bytearray(first + event("loss", 2, 0.5) + event("loss", 3, 0.5))
        damaged[len(first) + 20] ^= 1
        path = tmp_path / "events.out.tfevents.1"
        path.write_bytes(damaged)
        log = open_log(path)
        log.read()
        assert list(log.rows) == [1]
        assert f"byte {len(first)}" in log.notes[0]

    @given(st.binary(max_size=80))
    def test_no_bytes_are_more_than_unreadable(self, data: bytes) -> None:
        with suppress(UnreadableData):
            assert all(isinstance(scalar.tag, str) for scalar in scalars_of(data, Path("x")))

    def test_what_a_restart_made_void(self, tmp_path: Path) -> None:
        (tmp_path / "events.out.tfevents.1").write_bytes(b"".join(event("loss", step, 1.0) for step in (1, 2, 3, 4)))
        (tmp_path / "events.out.tfevents.2").write_bytes(event("loss", 3, 9.0))
        assert values(read(tmp_path), "loss") == {1: 1.0, 2: 1.0, 3: 9.0}

    def test_train_and_validation_are_one_run_and_two_runs_are_not(self, tmp_path: Path) -> None:
        for name in ("train", "validation"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "events.out.tfevents.1").write_bytes(event("loss", 1, 0.5))
        assert read(tmp_path)[1].metrics == {"loss": 0.5, "eval_loss": 0.5}
        (tmp_path / "validation").rename(tmp_path / "Nov30_vm")
        with pytest.raises(UnreadableData, match=r"the event files of 2 runs: Nov30_vm, train\. Name one"):
            open_log(tmp_path)


class TestCsv:
    def rows(self, tmp_path: Path, text: str) -> tuple[Rows, tuple[str, ...]]:
        path = tmp_path / "metrics.csv"
        path.write_text(text)
        log = open_log(path)
        log.read()
        return log.rows, log.notes

    def test_sparse_lines_of_one_step(self, tmp_path: Path) -> None:
        rows, notes = self.rows(tmp_path, "epoch,step,train/loss,val\n0,10,0.5,\n0,10,,0.4\n0,20,nan,\n")
        assert rows[10].metrics == {"epoch": 0, "loss": 0.5, "val": 0.4}
        assert math.isnan(rows[20].metrics["loss"])
        assert notes == ()

    def test_exports_of_tensorboard_and_wandb(self, tmp_path: Path) -> None:
        rows, _ = self.rows(tmp_path, "Wall time,Step,Value\n1796035974.7,5,0.25\n")
        assert (rows[5].time, rows[5].metrics) == (1796035974.7, {"metrics": 0.25})
        head = '"Step","lucky-1 - train/loss","lucky-1 - train/loss__MIN","lucky-1 - train/loss__MAX"'
        assert self.rows(tmp_path, f'{head}\n"3","0.5","0.5","0.5"\n')[0][3].metrics == {"loss": 0.5}

    def test_what_is_left_out_is_told(self, tmp_path: Path) -> None:
        rows, notes = self.rows(tmp_path, "step;loss;who\n1;0.5;me\nx;0.5;me\n2;1;2;3\n")
        assert rows.keys() == {1}
        assert notes[0].startswith("2 lines have no whole step")
        assert notes[1] == "columns without any number were left out: who"
        assert "lines are counted as steps" in self.rows(tmp_path, "loss\n3\n4\n")[1][0]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (b"1,2\n3,4\n", "line 1: holds numbers where names"),
            (b"step,a,a\n", "two columns are called 'a'"),
            (b"step\n1\n", "there is no metric in it"),
            (b"step,loss\n1,\xff\n", "byte 12: not UTF-8"),
        ],
    )
    def test_what_cannot_be_read_says_where(self, tmp_path: Path, content: bytes, words: str) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(content)
        with pytest.raises(UnreadableData, match=words):
            open_log(path).read()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("trainer_state.json", b'{"log_history": [', "not readable as JSON"),
        ("trainer_state.json", b"[]", "no list log_history"),
        ("events.out.tfevents.1", b"step,loss\n1,0.5\n2,0.25\n", "byte 0: no TFRecord"),
        ("notes.txt", b"", "its name says nothing that is understood. Expected trainer_state.json"),
    ],
)
def test_other_files_say_what_was_expected(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableData, match=words):
        open_log(tmp_path / name).read()
    with pytest.raises(NotFound, match="does not exist"):
        open_log(tmp_path / "nothing")


def test_a_folder_without_a_log_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text(json.dumps({}))
    with pytest.raises(UnreadableData, match=r"It has: model\.bin"):
        open_log(tmp_path)


def test_names() -> None:
    names = ["train/loss", "eval/rewards/margins", "objective/kl", "train/", "validation/loss"]
    assert list(map(our_name, names)) == ["loss", "eval_rewards/margins", "objective/kl", "train/", "eval_loss"]
