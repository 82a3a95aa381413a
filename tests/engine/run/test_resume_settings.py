"""What may change when a run goes on: portions, guards and cadences, and nothing that decides the loss."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.run.config import SECTIONS, sections_of
from engine.run.config_layers import resolve
from engine.run.config_toml import read_config, to_toml
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.method_names import METHODS
from engine.run.resume_settings import change_settings, changes_of, may_change


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    layer = {"run": {"id": "r1"}, "optim": {"lr": 0.5}, "data": {"names": ["a", "b"]}}
    return RunFolder.create(tmp_path / "r1", to_toml(resolve("dpo", [("test", layer)]).config))


def test_a_change_is_written_and_told_and_nothing_else_moves(folder: RunFolder) -> None:
    before = read_config(folder.config_path)
    settings = ["tokens_per_micro_batch=100", "probe.every=7", f"checkpoint.keep={before.checkpoint.keep}"]
    changes = changes_of(before, settings, "r1")
    assert changes == {"train.tokens_per_micro_batch": (4096, 100), "probe.every": (0, 7)}
    change_settings(folder, changes)
    after = read_config(folder.config_path)
    assert (after.train.tokens_per_micro_batch, after.probe.every) == (100, 7)
    assert changes_of(after, ["train.tokens_per_micro_batch=4096", "probe.every=0"], "r1").keys() == changes.keys()
    change_settings(folder, changes_of(after, ["train.tokens_per_micro_batch=4096", "probe.every=0"], "r1"))
    assert read_config(folder.config_path) == before
    told = [event["changes"] for event in read_events(folder) if event["kind"] == "settings_changed"]
    assert told[0] == {"train.tokens_per_micro_batch": [4096, 100], "probe.every": [0, 7]}
    assert len(told) == 2


def test_nothing_to_change_writes_nothing(folder: RunFolder) -> None:
    stamp = folder.config_path.stat().st_mtime_ns
    change_settings(folder, changes_of(read_config(folder.config_path), ["probe.every=0"], "r1"))
    assert folder.config_path.stat().st_mtime_ns == stamp
    assert read_events(folder) == []


@pytest.mark.parametrize(
    "setting",
    ["optim.lr=1e-3", "train.batch_size=8", "dpo.beta=0.2", "train.seed=2", "data.max_length=64", "adapter.r=4"],
)
def test_what_decides_the_loss_points_at_a_clone(folder: RunFolder, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"It may change: .*probe\.every.* workbench runs clone r1 --set {setting}$"):
        changes_of(read_config(folder.config_path), ["probe.every=7", setting], "r1")


def test_threads_are_refused_for_their_bits(folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match="another order in every kernel"):
        changes_of(read_config(folder.config_path), ["train.threads=2"], "r1")


def test_values_are_checked_as_ever(folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"\[checkpoint\] keep = 0: must be at least 1"):
        changes_of(read_config(folder.config_path), ["checkpoint.keep=0"], "r1")


@pytest.mark.parametrize("method", METHODS)
def test_only_keys_of_the_method_are_offered(method: str) -> None:
    offered = may_change(method)
    assert "train.tokens_per_micro_batch" in offered
    for name in offered:
        section, _, key = name.partition(".")
        assert section in sections_of(method)
        assert key in [known.name for known in fields(SECTIONS[section])]
