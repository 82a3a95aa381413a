"""The Hub without a Hub: a cache in its own layout, a socket that fails the test, and its errors in words."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from tests.workbench.run_folders import make_model
from workbench import hub_model

COMMIT = "a" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/home/me/token")
    return tmp_path


@pytest.fixture
def snapshot(cache: Path) -> Path:
    """hf:org/tiny at COMMIT, whole."""
    repository = cache / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return make_model(repository / "snapshots" / COMMIT)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What tried to reach the network; every try fails."""
    tried: list[Any] = []

    def refuse(*where: Any, **_: Any) -> Any:
        tried.append(where)
        raise OSError("no network in a test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library waits between its tries
    return tried


def test_a_pinned_commit_in_the_cache_connects_to_nothing(
    snapshot: Path, connections: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert hub_model.main(["org/tiny", COMMIT]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(snapshot), "revision": COMMIT}
    assert connections == []


def test_offline_a_name_without_a_revision_is_the_cached_newest(
    snapshot: Path, connections: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_model.main(["org/tiny"]) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == COMMIT
    assert hub_model.main(["org/other"]) == 1
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    assert connections == []


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_snapshot_that_is_not_whole_is_fetched(
    snapshot: Path, connections: list[Any], capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    (snapshot / missing).unlink()
    hub_model.main(["org/tiny", COMMIT])
    assert connections, "asked the Hub for what is missing"


def test_a_hub_that_cannot_be_reached_gives_what_is_cached(
    snapshot: Path, connections: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert hub_model.main(["org/tiny"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["revision"] == COMMIT
    assert connections
    assert hub_model.main(["org/other"]) == 1
    assert "the Hub cannot be reached" in capsys.readouterr().err


def test_a_download_that_does_not_fit_is_not_begun(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def snapshot_download(repository: str, **options: Any) -> Any:
        asked.append(options.get("dry_run", False))
        sizes = ((3 << 30, True), (5 << 30, False), (None, True))
        return [SimpleNamespace(file_size=size, will_download=will) for size, will in sizes]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub_model, "free_megabytes", lambda place: 3100)
    assert hub_model.main(["org/big"]) == 1
    said = capsys.readouterr().err
    assert "3,072 MB would be downloaded and 3,100 MB are free" in said
    assert "HF_HOME" in said
    assert asked == [True]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            errors.GatedRepoError,
            "accept the conditions at https://hub.example/org/x with your account, then set HF_TOKEN",
        ),
        (errors.RepositoryNotFoundError, "there is no https://hub.example/org/x, or it is private"),
        (errors.RevisionNotFoundError, "no such revision: see https://hub.example/org/x/commits"),
    ],
)
def test_what_the_hub_refuses_names_the_page_and_where_the_token_goes(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Any, words: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error("no", response=SimpleNamespace(headers={}, request=None, status_code=403))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert hub_model.main(["org/x"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    if error is not errors.RevisionNotFoundError:
        assert "/home/me/token" in said
