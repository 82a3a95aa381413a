"""What the tests of bad input share: a furnished workspace to harm, and an ear for faults of the program."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import textual._wait

from screens.app import WorkbenchApp
from tests.screens.furnished_workspace import furnish
from workbench.workspace import Workspace, open_workspace

# Textual's pilot looks every 20 ms whether a key is dealt with, twice a key, and a suite presses thousands. What a test
# needs to have happened it waits for by name, so a shorter look loses nothing.
textual._wait.SLEEP_GRANULARITY = 0.008
textual._wait.SLEEP_IDLE = textual._wait.SLEEP_GRANULARITY / 20


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """All toasts, however soon they go; a fault of the program among them fails the test."""
    messages: list[str] = []
    tell = WorkbenchApp.tell

    def remember(app: WorkbenchApp, message: str, severity: str = "information") -> None:
        messages.append(message)
        tell(app, message, severity)

    monkeypatch.setattr(WorkbenchApp, "tell", remember)
    yield messages
    assert not [message for message in messages if "a fault in this program" in message]


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """For all tests of a process: one that writes uses a copy, `workspace`."""
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def workspace(furnished: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(furnished.root, tmp_path / "ws")
    return open_workspace(tmp_path / "ws")
