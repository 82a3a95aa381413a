"""Run folders for the tests of engine.run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder
from engine.run.locks import holders
from engine.run.status import describe
from tests.engine.run.run_processes import wait_until


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., RunFolder]]:
    """Makes run folders, and at the end of the test ends every process that still belongs to one."""
    made: list[RunFolder] = []

    def make(name: str = "r1", **sections: dict[str, Any]) -> RunFolder:
        layer = {"run": {"id": name}, "train": {"device": "cpu"}, **sections}
        folder = RunFolder.create(tmp_path / name, to_toml(resolve("sft", [("test", layer)]).config))
        made.append(folder)
        return folder

    yield make
    for folder in made:
        if not folder.lock_path.exists():
            continue
        for path in (folder.lock_path, folder.tree_lock_path):
            for pid in holders(path):
                if pid != os.getpid():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        wait_until(lambda f=folder: not describe(f).alive, "the end of the run's processes")
