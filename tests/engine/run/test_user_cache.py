"""Where the cache of a person is."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.run.user_cache import user_cache_folder


def test_user_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert user_cache_folder() == Path("/somewhere/workbench")
