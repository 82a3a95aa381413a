"""What the workbench's tests share: a workspace in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return init(tmp_path / "ws")
