"""100 kill -9 of scripted sittings: nothing that was said is lost, nothing is there twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.benchmarks.judgment_kills import Found, sittings


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    found = Found()
    sittings(tmp_path, 100, 2_000, random.Random(11), found)
    assert found.problems == []
    assert found.lines == 2_000
    assert 80 <= found.kills <= 100, "a writer may come to its end before its kill"
