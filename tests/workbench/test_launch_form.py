"""The form's rows, its beginning, and where each fault is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.run.method_names import METHODS, ON_ROLLOUTS
from tests.workbench.run_folders import make_run
from workbench.cost_lines import cost_lines
from workbench.dataset_store import add_dataset
from workbench.errors import WorkbenchError
from workbench.launch_draft import Draft, draft_of
from workbench.launch_form import (
    Option,
    Surroundings,
    change_method,
    estimate,
    fields_of,
    first_draft,
    look_around,
    place_of,
    problem_of,
    problems_of,
    with_reward_model,
)
from workbench.launch_settings import MATTERING, all_keys, default_of, explanation_of
from workbench.run_clone import clone_request
from workbench.run_launch import create_run, plan_run
from workbench.run_preview import dry_run_fields
from workbench.workspace import Workspace


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def data(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Demonstrations and questions; preferences are added by the tests that want them."""
    add(workspace, tmp_path, "demos", [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(60)])
    add(workspace, tmp_path, "questions", [{"prompt": f"q{n}"} for n in range(20)])
    return workspace


def add(workspace: Workspace, folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    add_dataset(workspace, folder / f"{name}.jsonl")


def add_better(workspace: Workspace, folder: Path) -> None:
    add(workspace, folder, "better", [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(40)])


def keys(draft: Draft, around: Surroundings, **options: bool) -> list[str]:
    return [field.key for field in fields_of(draft, around, **options)]


class TestBeginning:
    def test_demonstrations_alone_mean_sft_on_the_sample_model(self, data: Workspace) -> None:
        draft = first_draft(data, look_around(data))
        assert (draft.method, draft.model, draft.data) == ("sft", "sample", "demos")

    def test_preferences_mean_dpo_from_the_newest_sft_run(self, data: Workspace, tmp_path: Path) -> None:
        add_better(data, tmp_path)
        make_run(data, "1123-sft-old-k3f", created="2026-11-23T10:00:00+00:00", checkpoints=(4,))
        make_run(data, "1124-sft-new-k3f", checkpoints=(4,))
        make_run(data, "1125-dpo-later-k3f", created="2026-11-25T10:00:00+00:00", checkpoints=(4,))
        draft = first_draft(data, look_around(data))
        assert (draft.method, draft.model, draft.data) == ("dpo", "run:1124-sft-new-k3f", "better")

    def test_a_run_that_has_learnt_nothing_is_not_chosen(self, data: Workspace, tmp_path: Path) -> None:
        add_better(data, tmp_path)
        make_run(data, "1124-sft-taught-k3f", checkpoints=(4,))
        make_run(data, "1125-sft-began-k3f", created="2026-11-25T10:00:00+00:00", phase="stopped", checkpoints=(0,))
        make_run(data, "1126-sft-never-k3f", created="2026-11-26T10:00:00+00:00", phase="stopped", step=0)
        make_run(data, "1127-reward-began-k3f", created="2026-11-27T10:00:00+00:00", checkpoints=(0,))
        around = look_around(data)
        assert first_draft(data, around).model == "run:1124-sft-taught-k3f"
        words = {one.value: one.words for one in (*around.models, *around.reward_models)}
        assert words["run:1125-sft-began-k3f"] == "sft, adapter, not trained yet"
        assert "run:1126-sft-never-k3f" not in words
        assert first_draft(data, around, "questions").method == "sft"
        assert with_reward_model(data, around, Draft(method="grpo")).reward_model == ""

    def test_the_subject_names_the_data(self, data: Workspace, tmp_path: Path) -> None:
        add_better(data, tmp_path)
        assert first_draft(data, look_around(data), "demos").method == "sft"
        assert first_draft(data, look_around(data), "better").data == "better"
        rows = [{"prompt": f"q{n}", "completion": "a", "label": n % 2 == 0} for n in range(4)]
        (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        add_dataset(data, tmp_path / "judged.jsonl")
        assert first_draft(data, look_around(data), "judged").method == "kto"

    def test_questions_with_a_reward_model_mean_ppo(self, data: Workspace) -> None:
        make_run(data, "1124-reward-r-k3f", checkpoints=(4,))
        draft = first_draft(data, look_around(data), "questions")
        assert (draft.method, draft.reward_model, draft.model) == ("ppo", "run:1124-reward-r-k3f", "sample")

    def test_an_empty_workspace_says_what_is_missing(self, workspace: Workspace) -> None:
        around = look_around(workspace)
        assert problems_of(first_draft(workspace, around), around) == {
            "data": "there is none yet; add some under datasets"
        }

    def test_a_clone_is_the_run(self, data: Workspace) -> None:
        around = look_around(data)
        draft = first_draft(data, around).put("optim.lr", "3e-4").put("name", "mine").put("eval_share", "0.2")
        run = create_run(plan_run(data, draft.request(), quiet=True))
        clone = first_draft(data, around, f"clone:{run.id}")
        assert (clone.name, clone.data, clone.eval_share) == ("mine", "demos", "0.2")
        assert clone.value("optim.lr") == "0.0003"
        assert clone == draft_of(clone_request(run))


class TestFields:
    def test_what_another_setting_makes_idle_stays_in_the_form_and_is_not_asked_for(self, data: Workspace) -> None:
        around = look_around(data)
        draft = replace(first_draft(data, around), method="sft").put("train.epochs", "3").put("adapter.r", "8")
        draft = draft.put("train.steps", "20").put("adapter.kind", "full")
        assert set(draft.request().settings) == {"train.steps=20", "adapter.kind=full"}
        assert problems_of(draft, around) == {}
        origins = {field.key: field.origin for field in fields_of(draft, around, every=True)}
        assert origins["train.epochs"] == "not used: train.steps is 20"
        assert plan_run(data, draft.request(), quiet=True)
        assert "train.epochs=3" in draft.put("train.steps", "").request().settings

    def test_the_form_names_the_setting_that_decides_not_the_one_it_overrules(self, data: Workspace) -> None:
        around, draft = look_around(data), Draft(method="dpo")
        assert {"train.epochs", "adapter.r"} <= set(keys(draft, around))
        decided = keys(draft.put("train.steps", "50").put("adapter.kind", "full"), around)
        assert {"train.steps", "adapter.kind"} <= set(decided)
        assert not {"train.epochs", "adapter.r"} & set(decided)

    @pytest.mark.parametrize("method", METHODS)
    def test_the_few_settings_come_before_the_rest(self, data: Workspace, method: str) -> None:
        around, draft = look_around(data), Draft(method=method)
        few, every = keys(draft, around), keys(draft, around, every=True)
        assert every[: len(few)] == few
        assert tuple(few[-len(MATTERING[method]) :]) == MATTERING[method]
        assert set(all_keys(method)) <= set(every)
        assert len(every) == len(set(every))
        assert ("reward_model" in few) is (method in ON_ROLLOUTS)

    @pytest.mark.parametrize("method", METHODS)
    def test_each_setting_is_explained_and_has_a_default_that_can_be_typed(self, method: str) -> None:
        for key in all_keys(method):
            assert explanation_of(key), key
            draft = Draft(method=method).put(key, default_of(method, key))
            assert draft.settings == {}
            assert problem_of(Draft(method=method), Surroundings((), (), ()), key) == ""

    def test_only_data_that_suits_is_offered(self, data: Workspace, tmp_path: Path) -> None:
        add_better(data, tmp_path)
        around = look_around(data)
        assert [option.value for option in around.data_for("dpo")] == ["better"]
        assert {option.value for option in around.data_for("sft")} == {"demos", "better"}

    def test_a_reward_model_is_offered_to_judge_and_not_to_tune(self, data: Workspace) -> None:
        make_run(data, "1124-reward-r-k3f", checkpoints=(4,))
        around = look_around(data)
        assert [option.value for option in around.reward_models] == ["run:1124-reward-r-k3f"]
        assert "run:1124-reward-r-k3f" not in [option.value for option in around.models]

    def test_origins(self, data: Workspace) -> None:
        draft = Draft(method="dpo").put("train.epochs", "2")
        origins = {field.key: field.origin for field in fields_of(draft, look_around(data))}
        assert (origins["train.epochs"], origins["optim.lr"], origins["dpo.beta"]) == (
            "set; default: 1.0",
            "default for dpo",
            "default",
        )

    def test_another_method_keeps_what_suits_it(self, data: Workspace, tmp_path: Path) -> None:
        add_better(data, tmp_path)
        around = look_around(data)
        draft = Draft(data="demos").put("optim.lr", "1e-3").put("sft.train_on", "all")
        changed = change_method(draft, "dpo", around)
        assert (changed.data, dict(changed.settings)) == ("better", {"optim.lr": "1e-3"})


class TestProblems:
    @pytest.mark.parametrize(
        ("key", "text", "problem"),
        [
            ("optim.lr", "-1", "must be > 0 (1e-6 to 5e-4 are usual)"),
            ("optim.lr", "fast", "must be a number"),
            ("train.batch_size", "2.5", "must be a whole number"),
            ("optim.schedule", "wavy", "must be one of 'linear', 'cosine', 'constant', 'wsd'"),
            ("data", "nothing", "there is no nothing here"),
            (
                "data",
                "questions",
                "questions is prompts; sft needs prompt-completion or messages or text or preference or labelled",
            ),
            ("data", "demos, more", ""),
            ("data", "demos:0.7 more:0.3", ""),
            ("data", "demos:0.7 nothing:0.3", "there is no nothing here"),
            ("data", "demos:0 more:1", "demos:0: the weight must be a number above 0, as in A:0.7 B:0.3"),
            ("eval_share", "1", "from 0 up to, not including, 1"),
            ("model", "", "name a model"),
        ],
    )
    def test_each_fault_is_told_beside_its_field(
        self, data: Workspace, tmp_path: Path, key: str, text: str, problem: str
    ) -> None:
        add(data, tmp_path, "more", [{"prompt": f"p{n}", "completion": f"b{n}"} for n in range(9)])
        around = look_around(data)
        assert problem_of(Draft(model="sample", data="demos").put(key, text), around, key) == problem

    def test_weights_go_from_the_field_to_the_run_and_back(self, data: Workspace, tmp_path: Path) -> None:
        add(data, tmp_path, "more", [{"prompt": f"p{n}", "completion": f"b{n}"} for n in range(30)])
        draft = Draft(model="sample", data="demos:0.7 more:0.3")
        assert draft.request().data == ("demos:0.7", "more:0.3")
        assert "data.weights_by" in keys(draft, look_around(data))
        assert "data.weights_by" not in keys(Draft(data="demos more"), look_around(data))
        run = create_run(plan_run(data, draft.request(), quiet=True))
        assert draft_of(clone_request(run)).data == draft.data
        lines = cost_lines(estimate(data, draft))
        assert lines[0].startswith("demos 70 %, 1.04 passes · more 30 % · 6 steps on cpu")

    def test_settings_that_contradict_each_other_are_told_at_the_one_to_change(
        self, data: Workspace, tmp_path: Path
    ) -> None:
        add_better(data, tmp_path)
        around = look_around(data)
        draft = Draft(method="dpo", model="sample", data="better").put("dpo.loss", "exo_pair")
        assert problems_of(draft, around) == {
            "dpo.label_smoothing": "must be > 0 for dpo.loss = exo_pair, which is infinite at 0. 0.001 is usual"
        }
        draft = draft.put("dpo.label_smoothing", "0.001")
        assert problems_of(draft, around) == {}
        assert problem_of(draft, around, "dpo.loss") == ""
        assert problems_of(draft.put("dpo.label_smoothing", "0.7"), around).keys() == {"dpo.label_smoothing"}

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"model": "run:1124-sft-gone-k3f"}, "model"),
            ({"model": "./gone"}, "model"),
            ({"method": "ppo", "reward_model": "run:1124-reward-gone-k3f"}, "reward_model"),
            ({"method": "ppo", "reward_model": "run:1124-reward-k3f@4run:nope"}, "reward_model"),
            ({"method": "ppo", "reward_model": "run:1124-reward-gone-k3f run:other"}, "reward_model"),
            ({"name": "../x"}, "name"),
            ({"train.device": "cuda"}, "train.device"),
        ],
    )
    def test_an_error_of_planning_finds_its_field(self, data: Workspace, change: dict[str, str], place: str) -> None:
        draft = Draft(model="sample", data="demos")
        for key, text in change.items():
            draft = draft.put(key, text)
        with pytest.raises(WorkbenchError) as caught:
            estimate(data, draft)
        assert place_of(caught.value, draft) == place

    def test_a_wrong_recipe_key_is_found_by_its_section(self) -> None:
        assert place_of(ValueError("--set: [optim] lr = -1.0: must be > 0"), Draft()) == "optim.lr"


def test_a_reward_model_that_is_deleted_meanwhile_leaves_the_form_as_it_was(data: Workspace) -> None:
    gone = Surroundings((), (Option("run:1124-reward-gone-k3f"),), ())
    draft = with_reward_model(data, gone, Draft(method="ppo", model="sample"))
    assert (draft.reward_model, draft.model) == ("run:1124-reward-gone-k3f", "sample")


class TestWeights:
    def test_a_rank_is_asked_for_only_where_it_is_one_of_this_run(self, data: Workspace) -> None:
        make_run(data, "1124-sft-lora-k3f", checkpoints=(4,))
        make_run(data, "1125-sft-all-k3f", checkpoints=(4,), adapter_kind="full")
        around = look_around(data)

        def rows(draft: Draft) -> dict[str, str]:
            words = {}
            for field in fields_of(draft, around):
                chosen = [option.words for option in field.options if option.value == field.value]
                words[field.key] = chosen[0] if chosen else field.value
            return words

        over_all = Draft(method="dpo", model="run:1125-sft-all-k3f")
        assert rows(over_all)["adapter.kind"] == "a LoRA adapter, model frozen"
        assert rows(over_all)["adapter.r"] == "16"
        over_lora = rows(Draft(method="dpo", model="run:1124-sft-lora-k3f@4"))
        assert over_lora["adapter.kind"] == "goes on with the model's adapter"
        assert "adapter.r" not in over_lora
        assert "adapter.r" not in rows(over_all.put("adapter.kind", "full"))

    def test_a_model_may_be_the_subject(self, data: Workspace) -> None:
        draft = first_draft(data, look_around(data), "model:./folder")
        assert (draft.method, draft.model, draft.data) == ("sft", "./folder", "demos")


class TestCost:
    def test_it_names_rows_steps_memory_and_disk(self, data: Workspace) -> None:
        facts = estimate(data, Draft(model="sample", data="demos"))
        rows, tokens, needs = cost_lines(facts)
        assert rows.startswith(
            f"{facts['train_rows']} rows, {facts['eval_rows']} held out · {facts['steps']} steps on cpu; "
            "time not known, a guess: "
        )
        assert tokens.startswith(f"about {facts['tokens_estimate']:,} tokens")
        assert needs.startswith("estimates: memory ")
        assert facts["memory_bytes_estimate"] == sum(
            facts[f"{part}_bytes_estimate"]
            for part in ("weights", "optimizer", "activation", "logit", "reference", "rollout", "floor")
        )

    def test_it_says_whether_activations_are_worked_again(
        self, data: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for free, kept in ((16_000_000_000, True), (415_000_000, False)):
            monkeypatch.setattr("workbench.run_cost.free_memory", lambda cuda, free=free: free)
            facts = estimate(data, Draft(model="sample", data="demos"))
            words = dry_run_fields(facts)["activations"]
            assert words.startswith("kept" if kept else "worked again")
            assert "needed" in words
            assert "GB free in memory" in words
            assert cost_lines(facts)[3:] == (() if kept else (f"activations {words}",))
            assert facts["activation_checkpointing"] is not kept

    def test_all_weights_cost_more_than_an_adapter(self, data: Workspace) -> None:
        draft = Draft(model="sample", data="demos").put("probe.prompts", "0")  # a probe reads a copy of all weights
        lora, full = (estimate(data, draft.put("adapter.kind", kind)) for kind in ("lora", "full"))
        small = estimate(data, draft.put("adapter.r", "4"))
        assert full["optimizer_bytes_estimate"] > lora["optimizer_bytes_estimate"]
        # An adapter's parameters, with gradient and moments, grow with its rank and with nothing else.
        assert lora["optimizer_bytes_estimate"] == 4 * small["optimizer_bytes_estimate"]
        assert full["checkpoint_bytes_estimate"] == 3 * full["weights_bytes_estimate"]

    def test_it_ends_when_it_is_told_to(self, data: Workspace) -> None:
        def go_on() -> None:
            raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            estimate(data, Draft(model="sample", data="demos"), go_on)
