"""How a worker's end is read."""

from __future__ import annotations

import signal

import pytest

from engine.run.status import Status
from engine.run.verdict import judge


def status(phase: str, attempt: int = 2, **fields: object) -> Status:
    return Status(run="r1", phase=phase, attempt=attempt, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", ["done", "stopped"])
@pytest.mark.parametrize("code", [0, 1, -11, -9])
def test_the_workers_last_word_stands(phase: str, code: int) -> None:
    verdict = judge(code, status(phase), attempt=2)
    assert (verdict.phase, verdict.told) == (phase, True)


@pytest.mark.parametrize("phase", ["done", "stopped", "failed"])
def test_the_word_of_an_earlier_attempt_does_not_count(phase: str) -> None:
    verdict = judge(-9, status(phase, attempt=1, error={"what": "old"}), attempt=2)
    assert verdict.phase == "failed"
    assert not verdict.told
    assert "signal 9" in verdict.what


def test_its_own_failure_keeps_its_words() -> None:
    verdict = judge(1, status("failed", error={"what": "nan", "remedy": "lower lr"}), attempt=2)
    assert (verdict.what, verdict.remedy, verdict.told) == ("nan", "lower lr", True)


def test_memory_is_named_where_the_kernel_says_so() -> None:
    assert "because memory ran out" in judge(-9, None, attempt=2, memory_ran_out=True).what
    by_hand = judge(-9, status("running"), attempt=2)
    assert by_hand.what == "the worker was killed by the kernel or by hand (signal 9)"
    assert "train.tokens_per_micro_batch" in by_hand.remedy


def test_sigterm_is_a_stop_only_where_one_was_wanted() -> None:
    assert judge(-signal.SIGTERM, status("preparing"), attempt=2, stop_wanted=True).phase == "stopped"
    assert judge(-signal.SIGTERM, status("preparing"), attempt=2).phase == "failed"


def test_lost_patience_is_named() -> None:
    assert "did not stop within 900 s" in judge(-9, status("running"), attempt=2, killed_after_stop_s=900).what


def test_other_ends_have_the_last_line_of_the_log() -> None:
    assert judge(0, status("running"), attempt=2).phase == "failed"
    assert judge(3, None, attempt=2, last_log_line="boom").what.endswith("the last line of engine.log is: boom")
    assert "SIGSEGV" in judge(-11, None, attempt=2).what
    assert "signal 99 (unknown)" in judge(-99, None, attempt=2).what
