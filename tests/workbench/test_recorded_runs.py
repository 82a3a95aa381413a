"""The recorded runs: real ones, of each alarm too, small, of no machine, and drawn as `runs watch --once` does."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from engine.run.alarm_rules import BY_NAME
from engine.run.config_toml import read_config
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.method_names import METHODS
from engine.run.metrics_log import read_metrics
from sample_data.make_recorded_runs import ALARMS, FOLDER, MOST_BYTES, RECIPES, RECORDINGS, run_id
from workbench.run_frame import FrameLook, RunFrame
from workbench.run_list import find_run, summarise
from workbench.workspace import Workspace, init

GOLDENS = Path(__file__).parent / "goldens"
SIZES = {"80x24": tuple(RECORDINGS), "120x30": ("dpo", "ppo", "kl_runaway"), "160x48": ("dpo", "ppo", "kl_runaway")}
CASES = [(size, name) for size, names in SIZES.items() for name in names]
OF_A_MACHINE = re.compile(r"/(?:home|root|tmp|work|usr|var|Users)/")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace that holds all recordings."""
    workspace = init(tmp_path_factory.mktemp("recorded") / "ws")
    for folder in FOLDER.iterdir():
        if folder.name.endswith("-rec"):
            shutil.copytree(folder, workspace.runs / folder.name)
    return workspace


def test_there_is_one_for_each_rollout_method_and_alarm() -> None:
    assert {folder.name for folder in FOLDER.glob("*-rec")} == {run_id(name) for name in RECORDINGS}
    assert {recipe.stem for recipe in RECIPES.glob("*.toml")} == set(RECORDINGS)
    assert set(ALARMS) == set(BY_NAME)
    assert {"sft", "reward", "dpo", "ppo", "grpo", "rloo"} <= set(METHODS) & set(RECORDINGS)


@pytest.mark.parametrize("name", RECORDINGS)
def test_it_is_what_its_recipe_provokes(name: str) -> None:
    folder = RunFolder(FOLDER / run_id(name))
    config, lines = read_config(folder.config_path), read_metrics(folder.metrics_path)
    assert config.run.method == RECORDINGS[name].method
    recipe = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    assert config.train.steps == recipe["train"]["steps"]
    assert config.optim.lr == recipe["optim"]["lr"]
    raised = {event["alarm"] for event in read_events(folder) if event["kind"] == "alarm"}
    assert (name in raised) if name in ALARMS else not raised, raised
    assert len(lines) > 2
    assert sum(file.stat().st_size for file in folder.path.iterdir()) < MOST_BYTES
    for file in folder.path.iterdir():
        assert not OF_A_MACHINE.search(file.read_text()), file.name


@pytest.mark.parametrize(("size", "name"), CASES)
def test_a_frame(size: str, name: str, recorded: Workspace) -> None:
    run = find_run(recorded, run_id(name))
    width, height = map(int, size.split("x"))
    found = "\n".join(RunFrame(run).lines(FrameLook(width, height))) + "\n"
    path = GOLDENS / f"watch-{name}.{size}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, "utf-8")
    assert path.exists(), f"{path.name} is missing; write it with UPDATE_GOLDENS=1 and read it"
    assert found == path.read_text("utf-8"), found


def test_a_pause_by_an_alarm_is_told(recorded: Workspace) -> None:
    summary = summarise(find_run(recorded, run_id("kl_runaway")))
    assert summary.state == "stopped"
    assert summary.reason.startswith("paused by the alarm kl_runaway")
