"""What the app is drawn on takes whole frames."""

from __future__ import annotations

import io
import os
import signal
import threading
import time

import pytest

from screens.start import written_whole

FRAME = "a line of a frame, and the next one\r\n" * 8000
"""More than a pipe takes at once."""


@pytest.fixture
def ends() -> object:
    read, write = os.pipe()
    yield read, write
    for one in (read, write):
        os.close(one)


def test_a_signal_in_the_middle_of_a_write_loses_nothing(ends: tuple[int, int]) -> None:
    read, write = ends
    unbuffered = io.TextIOWrapper(io.FileIO(write, "wb", closefd=False), newline="", write_through=True)
    got = bytearray()

    def take() -> None:
        while len(got) < len(FRAME):
            time.sleep(0.002)
            got.extend(os.read(read, 4096))

    reader = threading.Thread(target=take, daemon=True)
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    try:
        reader.start()
        stream = written_whole(unbuffered)
        assert stream is not None
        stream.write(FRAME)
        stream.flush()
        reader.join(20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert bytes(got) == FRAME.encode()


def test_what_has_a_buffer_stays_as_it_is(ends: tuple[int, int]) -> None:
    with open(ends[1], "w", encoding="utf-8", closefd=False) as buffered:
        assert written_whole(buffered) is buffered
    assert written_whole(None) is None
