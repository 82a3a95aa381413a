"""The time of a step that nothing has measured is a guess with a range; a run like it takes its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.data.token_facts import TokenFacts
from engine.model.model_sizes import ModelSizes, read_model_sizes
from engine.run.config import RunConfig
from engine.run.config_layers import resolve
from engine.run.status import read_status, this_host, write_status
from sample_data import files
from tests.workbench.run_folders import make_run
from workbench import time_guess
from workbench.cost_lines import cost_lines
from workbench.run_cost import step_time
from workbench.run_list import all_runs
from workbench.run_preview import time_words
from workbench.time_guess import core_flops_a_second, guess_step, guessed_step_s, work_of
from workbench.workspace import Workspace

FACTS = TokenFacts(mean=40.0, deviation=0.0, longest=60, scored_share=0.5)


@pytest.fixture
def sizes() -> ModelSizes:
    found = read_model_sizes(files()["model"])
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_guess, "core_flops_a_second", lambda: 25e9)
    monkeypatch.setattr(time_guess, "usable_cores", lambda: 2)


def config_of(method: str, **settings: Any) -> RunConfig:
    layer: dict[str, dict[str, Any]] = {"train": {"device": "cpu"}}
    for key, value in settings.items():
        section, _, name = key.partition("__")
        layer.setdefault(section, {})[name] = value
    return resolve(method, [("test", layer)]).config


def seconds(config: RunConfig, sizes: ModelSizes, rate: float = 25e9) -> float:
    return guessed_step_s(config, sizes, FACTS, checkpointing=False, rate=rate, answers=1.0)


def test_the_rate_of_a_core_is_measured() -> None:
    assert 1e8 < core_flops_a_second() < 1e13


def test_sampling_scoring_and_every_pass_are_work() -> None:
    work = work_of(config_of("grpo", train__batch_size=4, grpo__generations=4, grpo__max_new_tokens=10), FACTS, 1.0)
    assert (work.tokens, work.scored, work.passes, work.looks, work.rows, work.new) == (320, 160, 2, 2, 16, 10)
    ppo = work_of(config_of("ppo", train__batch_size=16, ppo__max_new_tokens=10), FACTS, 0.5)
    assert (ppo.tokens, ppo.passes) == (16 * 45, 4)  # the value trains beside the policy
    sft = work_of(config_of("sft", train__batch_size=16), FACTS, 1.0)
    assert (sft.tokens, sft.scored, sft.passes, sft.looks, sft.rows) == (640, 320, 1, 0, 0)


def test_a_step_of_the_sample_model_is_guessed_within_its_range(sizes: ModelSizes) -> None:
    """Measured with one thread, as CPU time: SFT of 16 rows 0.26 s, GRPO of 4 prompts, answers of 32 tokens, 1.2 s."""
    sft = config_of("sft", train__threads=1)
    grpo = config_of("grpo", train__threads=1, train__batch_size=4, grpo__generations=4, grpo__max_new_tokens=32)
    for config, measured in ((sft, 0.26), (grpo, 1.2)):
        guess = guess_step(config, sizes, FACTS, checkpointing=False)
        assert guess.low < measured < guess.high
        assert not guess.measured
        assert guess.low < guess.seconds < guess.high


def test_more_work_takes_longer(sizes: ModelSizes) -> None:
    base = seconds(config_of("sft"), sizes)
    assert seconds(config_of("sft", train__batch_size=32), sizes) > 1.5 * base
    assert seconds(config_of("sft"), sizes, rate=5e9) > 2 * base
    assert seconds(config_of("sft", adapter__kind="full"), sizes) != base
    few, many = (config_of("grpo", grpo__max_new_tokens=new) for new in (16, 64))
    assert seconds(many, sizes) > 2 * seconds(few, sizes)
    cuda = replace(config_of("sft").train, device="cuda")
    assert seconds(replace(config_of("sft"), train=cuda), sizes, rate=40e12) < base


class TestWords:
    def facts(self, *, measured: bool) -> dict[str, Any]:
        return {"seconds_measured": measured, "seconds_estimate": 26.0, "seconds_range": [9.0, 95.0]}

    def test_a_guess_is_never_shown_as_known(self) -> None:
        assert time_words(self.facts(measured=True)) == "about 26s"
        words = time_words(self.facts(measured=False))
        assert words == "not known until a run like it has ended here; a guess: 9.0s to 1m 35s"
        rest = {"train_rows": 9, "eval_rows": 1, "steps": 3, "device": "cpu", "processes": 1, "tokens_estimate": 9}
        rest |= {"tokens_a_row_estimate": 1, "cut_at_max_length_estimate": 0, "sample": {"dropped": {}}, "left_out": {}}
        rest |= {"free_megabytes": 1}
        first = cost_lines({**rest, **self.facts(measured=False)})[0]
        assert first.endswith("time not known, a guess: 9.0s to 1m 35s")
        assert len(first) < 78


class TestMeasured:
    def ended(self, workspace: Workspace, method: str, **last: float) -> None:
        folder = make_run(workspace, f"1124-{method}-sample-k3f")
        status = read_status(folder)
        assert status is not None
        write_status(folder, replace(status, host=this_host(), last=last))

    def test_a_run_like_it_says_how_long(self, workspace: Workspace, sizes: ModelSizes) -> None:
        self.ended(workspace, "sft", tokens_per_second=320.0)
        (run,) = all_runs(workspace)
        found = step_time(run.config(), sizes, FACTS, [run], checkpointing=False)
        assert (found.seconds, found.measured) == (2.0, True)
        assert found.low == found.high == found.seconds

    def test_of_rollouts_the_whole_step_is_taken(self, workspace: Workspace, sizes: ModelSizes) -> None:
        self.ended(workspace, "grpo", tokens_per_second=320.0, step_time_s=3.0)
        (run,) = all_runs(workspace)
        config = run.config()
        assert step_time(config, sizes, FACTS, [run], checkpointing=False).seconds == pytest.approx(3.0)
        twice = replace(config, train=replace(config.train, batch_size=2 * config.train.batch_size))
        assert 4.0 < step_time(twice, sizes, FACTS, [run], checkpointing=False).seconds < 7.0
