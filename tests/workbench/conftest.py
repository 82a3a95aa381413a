"""What the workbench's tests share: a workspace in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return init(tmp_path / "ws")


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes, converted models and approvals are kept in folders of the tests, never in the person's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


class _All(dict[str, int]):
    """Knows every file."""

    def get(self, mark: str, default: Any = None) -> Any:
        return 0


@pytest.fixture(autouse=True)
def files_were_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of tests start no child before they are opened; `test_file_trial` is about that child."""
    monkeypatch.setattr("workbench.file_trial._known", _All())
