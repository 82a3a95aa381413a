"""Every alarm has a recipe in `alarm_recipes/` that provokes it within its few steps, on the tiny model.

What a recipe does not say is as `run_maker` makes it. Where an alarm needs a policy that has learned to answer, the run
goes on with `taught`; `reward_hacking` begins from `fluent`, and its reward model was taught to like long answers.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine import train
from engine.run.alarm_rules import BY_NAME, RULES, limits_of
from engine.run.config_toml import read_config
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.status import read_status
from tests.engine.run_maker import WORDS, answer, make_run, user, write_rows

RECIPES = Path(__file__).parent / "alarm_recipes"
WITHIN = {
    "kl": 4, "kl_runaway": 3, "value": 4, "clipping": 3, "flat_groups": 3, "cut_off": 3, "overfitting": 12,
    "displacement": 10, "reward_hacking": 12,
}  # fmt: skip
"""Alarm -> the step at which it is raised, at the latest."""


def run(folder: RunFolder) -> RunFolder:
    assert train.main([str(folder.path)]) == 0
    return folder


@pytest.fixture(scope="module")
def judge(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model after a few steps."""
    folder = run(make_run(tmp_path_factory.mktemp("judge") / "judge", "reward", tiny_model_folder, train__steps=2))
    return folder.checkpoint_path(2)


@pytest.fixture(scope="module")
def taught(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that has learned to answer in a few words and to end its answers."""
    folder = make_run(
        tmp_path_factory.mktemp("taught") / "taught", "sft", tiny_model_folder, eval_rows=0, probe__prompts=0,
        train__steps=40, train__batch_size=8, checkpoint__every=40,
    )  # fmt: skip
    return run(folder).checkpoint_path(40)


@pytest.fixture(scope="module")
def fluent(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model that has learned to answer in a few words and to end its answers, also when it is sampled."""
    folder = make_run(
        tmp_path_factory.mktemp("fluent") / "fluent", "sft", tiny_model_folder, eval_rows=0, probe__prompts=0,
        train__steps=80, train__batch_size=8, checkpoint__every=80, adapter__kind="full", optim__lr=5e-3,
    )  # fmt: skip
    return run(folder).checkpoint_path(80)


@pytest.fixture(scope="module")
def fond_of_length(fluent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that was taught to prefer the longer of two answers, whatever they say."""
    folder = make_run(
        tmp_path_factory.mktemp("fond") / "fond", "reward", fluent, train__steps=30, train__batch_size=8,
        checkpoint__every=30, evaluation__every=30, checkpoint__patience=0,
    )  # fmt: skip
    rows = []
    for i in range(24):
        long = f"The {WORDS[(i + i % 3) % 10]}{' and more' * (2 + i % 5)}."
        short = f"The {WORDS[i % 10]}{' and more' * (i % 2)}."
        both = {"chosen": answer(long), "rejected": answer(short)}
        rows.append({"id": f"l{i}", "prompt": user(f"Say {WORDS[i % 10]}"), **both})
    write_rows(folder.data / "train.jsonl", rows)
    return run(folder).checkpoint_path(30)


def recipe_run(name: str, path: Path, model: Path, **settings: Any) -> RunFolder:
    """The run of a recipe, at its end."""
    recipe = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    data = recipe.pop("data", {})
    method = recipe.pop("run")["method"]
    chosen = {f"{section}__{key}": value for section, keys in recipe.items() for key, value in keys.items()}
    usual = {"probe__prompts": 0, "checkpoint__every": 100, "evaluation__every": 100, "evaluation__at_start": False}
    rows = {"train_rows": 24, "eval_rows": 0, **data}
    return run(make_run(path, method, model, **rows, **{**usual, **chosen, **settings}))


def raised(folder: RunFolder) -> dict[str, dict[str, Any]]:
    return {event["alarm"]: event for event in read_events(folder) if event["kind"] == "alarm"}


def check(name: str, folder: RunFolder) -> dict[str, Any]:
    """The alarm of a recipe, raised in time and by its usual threshold."""
    alarm = raised(folder)[name]
    assert alarm["step"] <= WITHIN[name]
    assert 0 < alarm["onset"] <= alarm["step"]
    config = read_config(folder.config_path)
    limits = limits_of(BY_NAME[name], config)
    assert limits is not None
    assert (alarm["window"], alarm["threshold"]) == (limits.window, limits.threshold)
    assert alarm["what"].startswith(BY_NAME[name].title)
    recipe = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    assert "threshold" not in recipe.get(BY_NAME[name].section, {})
    return alarm


def test_every_alarm_has_a_recipe() -> None:
    assert {file.stem for file in RECIPES.glob("*.toml")} == {rule.name for rule in RULES} == set(WITHIN)


@pytest.mark.parametrize("name", ["kl", "kl_runaway", "value", "clipping", "flat_groups", "cut_off"])
def test_on_rollouts(name: str, tiny_model_folder: Path, judge: Path, tmp_path: Path) -> None:
    of_reward = {"model__reward_path": str(tiny_model_folder), "model__reward_adapter": str(judge)}
    folder = recipe_run(name, tmp_path / name, tiny_model_folder, **of_reward)
    check(name, folder)
    status = read_status(folder)
    assert status is not None
    by = {"alarm": "kl_runaway", "action": "pause"} if name == "kl_runaway" else None
    assert (status.phase, status.stopped_by) == ("stopped" if by else "done", by)


def test_pairs_that_are_learned_by_heart(tiny_model_folder: Path, tmp_path: Path) -> None:
    alarm = check("overfitting", recipe_run("overfitting", tmp_path / "overfitting", tiny_model_folder))
    assert "on held-out pairs" in alarm["what"]


@pytest.mark.slow
def test_preferred_answers_that_are_unlearnt(tiny_model_folder: Path, taught: Path, tmp_path: Path) -> None:
    path = tmp_path / "displacement"
    check("displacement", recipe_run("displacement", path, tiny_model_folder, model__adapter=str(taught)))


@pytest.mark.slow
def test_a_reward_model_that_is_fond_of_length_is_hacked(fluent: Path, fond_of_length: Path, tmp_path: Path) -> None:
    of_reward = {"model__reward_path": str(fluent), "model__reward_adapter": str(fond_of_length)}
    folder = recipe_run("reward_hacking", tmp_path / "reward_hacking", fluent, **of_reward)
    alarm = check("reward_hacking", folder)
    assert alarm["action"] == "pause"
    status = read_status(folder)
    assert status is not None
    assert (status.phase, status.step) == ("stopped", alarm["step"])
