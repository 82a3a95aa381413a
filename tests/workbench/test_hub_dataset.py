"""Datasets that come through `datasets`: saved folders with and without splits, and a Hub that cannot be reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workbench.dataset_store import add_dataset, open_dataset
from workbench.errors import UnreadableData, UsageError
from workbench.hub_dataset import _load_hub, parse_source
from workbench.workspace import Workspace, init

MAKE = """
import sys, datasets
rows = [{"prompt": [{"role": "user", "content": f"q{n} é"}], "chosen": [{"role": "assistant", "content": f"g{n}"}],
         "rejected": [{"role": "assistant", "content": f"b{n}"}], "score": n / 2} for n in range(6)]
one = datasets.Dataset.from_list(rows)
one.save_to_disk(sys.argv[1] + "/one")
datasets.DatasetDict({"train_prefs": one, "test_prefs": one.select(range(2))}).save_to_disk(sys.argv[1] + "/splits")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("text", "kind", "name", "parts"),
    [
        ("hf:org/name", "hub", "org/name", ()),
        ("hf:org/name:train", "hub", "org/name", ("train",)),
        ("hf:org/name:conf:train", "hub", "org/name", ("conf", "train")),
    ],
)
def test_how_a_hub_dataset_is_written(text: str, kind: str, name: str, parts: tuple[str, ...]) -> None:
    found = parse_source(text)
    assert found is not None
    assert (found.kind, found.name, found.parts, found.written) == (kind, name, parts, text)


@pytest.mark.parametrize("text", ["hf:", "hf:a:b:c:d", "hf:a:", "hf:a::train"])
def test_what_is_no_hub_dataset(text: str) -> None:
    with pytest.raises(UsageError, match="hf:NAME"):
        parse_source(text)


def test_a_file_is_none_of_this(tmp_path: Path) -> None:
    assert parse_source(str(tmp_path / "a.jsonl")) is None
    assert parse_source(str(tmp_path)) is None


def test_a_saved_folder_becomes_a_dataset_of_its_own(workspace: Workspace, saved: Path) -> None:
    added = add_dataset(workspace, saved / "one")
    assert (added.name, added.shape, added.info.rows) == ("one", "preference", 6)
    assert (added.info.source.kind, added.info.source.path) == ("saved", "datasets/one/data.parquet")
    assert "fingerprint" in added.info.source.details
    row = next(added.rows())
    assert row["prompt"] == [{"role": "user", "content": "q0 é"}]  # type: ignore[typeddict-item]
    assert row["tags"] == {"score": 0.0}
    assert open_dataset(workspace, "one") == added


def test_splits_are_chosen_by_name_and_listed_otherwise(workspace: Workspace, saved: Path) -> None:
    with pytest.raises(UnreadableData, match=r"name one of its splits.*train_prefs, test_prefs"):
        add_dataset(workspace, saved / "splits")
    added = add_dataset(workspace, f"{saved}/splits:test_prefs", "held")
    assert (added.info.rows, added.info.source.details["split"]) == (2, "test_prefs")
    assert workspace.names("datasets") == ["held"]


def test_a_hub_that_is_switched_off_says_so(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_canary_token")
    with pytest.raises(UnreadableData, match=r"hf:org/none:train: .*HF_HUB_OFFLINE") as caught:
        add_dataset(workspace, "hf:org/none:train")
    assert "hf_canary_token" not in str(caught.value)
    assert list(workspace.datasets.iterdir()) == []


class FakeHub:
    """What `datasets` says about one dataset of the Hub."""

    def __init__(self, **splits_of: list[str]) -> None:
        self.splits_of = splits_of

    def get_dataset_config_names(self, name: str) -> list[str]:
        return list(self.splits_of)

    def get_dataset_split_names(self, name: str, configuration: str) -> list[str]:
        return self.splits_of[configuration]

    def load_dataset(self, name: str, configuration: str, split: str) -> str:
        return f"{configuration}/{split}"


@pytest.mark.parametrize(
    ("hub", "parts", "loaded"),
    [
        (FakeHub(default=["train", "test"]), [], "default/train"),
        (FakeHub(default=["train", "test"]), ["test"], "default/test"),
        (FakeHub(en=["dev"]), [], "en/dev"),
        (FakeHub(en=["train"], de=["train", "test"]), ["de"], "de/train"),
        (FakeHub(en=["train"], de=["train", "test"]), ["de", "test"], "de/test"),
    ],
)
def test_configuration_and_split_are_told_apart(hub: FakeHub, parts: list[str], loaded: str) -> None:
    found, details = _load_hub(hub, "org/name", parts)
    assert found == loaded == f"{details['configuration']}/{details['split']}"


@pytest.mark.parametrize(
    ("hub", "parts", "message"),
    [
        (FakeHub(en=["train"], de=["train"]), [], "name a configuration.*en, de"),
        (FakeHub(en=["train"]), ["fr", "train"], "no configuration 'fr'.*en"),
        (FakeHub(default=["train"]), ["tset"], "no split 'tset'.*train"),
        (FakeHub(default=["a", "b"]), [], "name one of its splits.*a, b"),
    ],
)
def test_what_the_hub_has_not_is_listed(hub: FakeHub, parts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _load_hub(hub, "org/name", parts)


def test_a_damaged_saved_folder_is_one_clear_line(tmp_path: Path, saved: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "state.json").write_text("{}")
    workspace = init(tmp_path / "ws")
    with pytest.raises(UnreadableData, match="broken: `datasets` cannot read it") as caught:
        add_dataset(workspace, broken)
    assert "\n" not in str(caught.value)
    assert list(workspace.datasets.iterdir()) == []
