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
from pathlib import Path
rows = [{"prompt": [{"role": "user", "content": f"q{n} é"}], "chosen": [{"role": "assistant", "content": f"g{n}"}],
         "rejected": [{"role": "assistant", "content": f"b{n}"}], "score": n / 2} for n in range(6)]
one = datasets.Dataset.from_list(rows)
one.save_to_disk(sys.argv[1] + "/one")
splits = {"train_prefs": one, "test_prefs": one.select(range(2))}
datasets.DatasetDict(splits).save_to_disk(sys.argv[1] + "/splits")
# What a Hub dataset leaves in HF_HOME, as `datasets` finds it again without a connection.
from datasets.arrow_writer import ArrowWriter
folder = Path(sys.argv[1], "hf", "datasets", "org___made", "default", "0.0.0", "a" * 40)
folder.mkdir(parents=True)
for split, rows in splits.items():
    with ArrowWriter(path=str(folder / f"made-{split}.arrow"), features=rows.features) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
infos = {split: {"name": split, "num_bytes": 1, "num_examples": len(rows), "dataset_name": "made"}
         for split, rows in splits.items()}
datasets.DatasetInfo(features=one.features, splits=infos, builder_name="json", dataset_name="made",
                     config_name="default", version="0.0.0").write_to_directory(str(folder))
# Arrow files of both kinds: a stream, as `datasets` keeps them, and a file, as Feather is.
import pyarrow, pyarrow.feather
pyarrow.feather.write_feather(one.data.table, sys.argv[1] + "/rows.feather", compression="lz4")
pyarrow.feather.write_feather(one.data.table.slice(0, 0), sys.argv[1] + "/none.feather")
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
        ("hf:org/name@v1.0:train", "hub", "org/name", ("train",)),
    ],
)
def test_how_a_hub_dataset_is_written(text: str, kind: str, name: str, parts: tuple[str, ...]) -> None:
    found = parse_source(text)
    assert found is not None
    assert (found.kind, found.name, found.parts, found.written) == (kind, name, parts, text)
    assert found.revision == ("v1.0" if "@" in text else "")


@pytest.mark.parametrize("text", ["hf:", "hf:a:b:c:d", "hf:a:", "hf:a::train", "hf:a@", "hf:@main"])
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


@pytest.mark.slow
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

    def get_dataset_config_names(self, name: str, revision: str = "main") -> list[str]:
        self.asked = {revision}
        return list(self.splits_of)

    def get_dataset_split_names(self, name: str, configuration: str, revision: str = "main") -> list[str]:
        self.asked.add(revision)
        return self.splits_of[configuration]

    def load_dataset(self, name: str, configuration: str, split: str, revision: str = "main") -> str:
        self.asked.add(revision)
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


def test_a_revision_is_asked_for_everywhere_and_recorded() -> None:
    hub = FakeHub(default=["train"])
    _, details = _load_hub(hub, "org/name", [], "v2")
    assert (hub.asked, details["revision"]) == ({"v2"}, "v2")


@pytest.mark.slow
def test_a_hub_dataset_from_the_cache_with_configuration_split_and_commit(
    workspace: Workspace, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(saved / "hf"))
    added = add_dataset(workspace, f"hf:org/made@{'a' * 40}:default:test_prefs", "cached")
    assert (added.info.rows, added.shape, added.info.source.kind) == (2, "preference", "hub")
    wanted = {"configuration": "default", "split": "test_prefs", "revision": "a" * 40, "commit": "a" * 40}
    assert added.info.source.details.items() >= wanted.items()
    with pytest.raises(UnreadableData, match=f"stored here is commit {'a' * 40}, not {'b' * 40}"):
        add_dataset(workspace, f"hf:org/made@{'b' * 40}:default:test_prefs", "other")


@pytest.mark.parametrize(
    "file", ["rows.feather", "hf/datasets/org___made/default/0.0.0/" + "a" * 40 + "/made-train_prefs.arrow"]
)
def test_arrow_files_of_both_kinds(workspace: Workspace, saved: Path, file: str) -> None:
    added = add_dataset(workspace, saved / file, "rows")
    assert (added.info.rows, added.shape, added.info.source.kind) == (6, "preference", "arrow")
    assert next(added.rows())["prompt"] == [{"role": "user", "content": "q0 é"}]  # type: ignore[typeddict-item]


def test_arrow_files_that_are_none(workspace: Workspace, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreadableData, match="none.feather: it is empty"):
        add_dataset(workspace, saved / "none.feather", "none")
    (tmp_path / "torn.arrow").write_bytes((saved / "rows.feather").read_bytes()[:200])
    with pytest.raises(UnreadableData, match="torn.arrow: it cannot be read as Arrow"):
        add_dataset(workspace, tmp_path / "torn.arrow", "torn")
    (tmp_path / "unnamed").write_bytes((saved / "rows.feather").read_bytes())
    with pytest.raises(UnreadableData, match="name it .arrow"):
        add_dataset(workspace, tmp_path / "unnamed", "unnamed")
    assert workspace.names("datasets") == []
