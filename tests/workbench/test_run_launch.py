"""A run's folder holds everything the run needs, whoever looks at it; a preview writes nothing."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, EngineError
from engine.run import gpus
from engine.run.config_toml import to_toml
from engine.run.events import append_event
from engine.run.folder import MANIFEST, RunFolder
from tests.workbench.run_folders import make_model, make_run
from workbench.canonical_rows import assistant, group_of, is_held_out, user
from workbench.cli import main
from workbench.cost_lines import cost_lines
from workbench.dataset_store import add_dataset
from workbench.errors import NotFound, UsageError, WorkbenchError
from workbench.launch_device import gpu_environment
from workbench.left_out import LeftOut, left_out_words
from workbench.pair_sets import pairs_from_dataset
from workbench.preferences import freeze
from workbench.run_examples import examples_for
from workbench.run_launch import LaunchRequest, Plan, create_run, default_name, new_run_id, plan_run
from workbench.run_list import Run
from workbench.run_preview import dry_run, dry_run_fields
from workbench.workspace import Workspace


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def data(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A dataset of every shape, and a preference set."""
    files: dict[str, list[dict[str, Any]]] = {
        "demos": [{"prompt": f"q{n}", "completion": f"a{n}", "combination": n % 3} for n in range(60)],
        "texts": [{"text": f"text {n}"} for n in range(20)],
        "chats": [{"messages": [user(f"q{n}"), assistant("a")]} for n in range(20)],
        "questions": [{"prompt": f"q{n}"} for n in range(20)],
        "answers": [{"prompt": f"q{n}", "a": "x", "b": "y"} for n in range(20)],
        "better": [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(40)],
    }
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        add_dataset(workspace, tmp_path / f"{name}.jsonl")
    pairs_from_dataset(workspace, "pairs", add_dataset(workspace, tmp_path / "better.jsonl", "better2"))
    freeze(workspace, "pairs", "prefs")
    return workspace


def plan(workspace: Workspace, method: str, *names: str, **options: Any) -> Plan:
    return plan_run(workspace, LaunchRequest(method, options.pop("model", "sample"), names, **options), quiet=True)


def lines(run: Run, side: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder.data / f"{side}.jsonl").read_text().splitlines()]


class TestExamples:
    def test_a_plain_dataset_is_split_by_prompt(self, data: Workspace) -> None:
        run = create_run(plan(data, "sft", "demos"))
        train, held_out = lines(run, "train"), lines(run, "eval")
        assert len(train) + len(held_out) == 60
        assert 0 < len(held_out) < 20
        assert all(is_held_out(group_of(row["prompt"]), 1, 0.1) for row in held_out)
        assert train[0]["prompt"][0]["role"] == "user"
        assert train[0]["completion"][0]["role"] == "assistant"
        assert set(train[0]) == {"id", "prompt", "completion", "tags"}

    def test_a_preference_set_keeps_its_split(self, data: Workspace) -> None:
        run = create_run(plan(data, "dpo", "prefs"))
        frozen = (data.prefs / "prefs" / "eval.jsonl").read_text().splitlines()
        assert [row["id"] for row in lines(run, "eval")] == [json.loads(line)["id"] for line in frozen]
        assert {"chosen", "rejected", "weight", "margin", "group"} <= set(lines(run, "train")[0])

    def test_sft_on_preferences_learns_the_chosen_answers(self, data: Workspace) -> None:
        run = create_run(plan(data, "sft", "prefs"))
        assert {row["completion"][0]["content"] for row in lines(run, "train")} == {"good"}

    @pytest.mark.parametrize(("name", "key"), [("texts", "text"), ("chats", "messages"), ("better", "completion")])
    def test_sft_takes_every_shape_that_holds_an_answer(self, data: Workspace, name: str, key: str) -> None:
        assert key in lines(create_run(plan(data, "sft", name)), "train")[0]

    def test_kto_takes_labelled_answers_and_makes_two_of_a_pair(self, data: Workspace, tmp_path: Path) -> None:
        rows = [{"prompt": f"q{n}", "completion": f"a{n}", "label": n % 3 == 0} for n in range(40)]
        (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        add_dataset(data, tmp_path / "judged.jsonl")
        first = lines(create_run(plan(data, "kto", "judged")), "train")[0]
        assert (first["prompt"], first["completion"], first["label"]) == ([user("q0")], [assistant("a0")], True)
        planned = plan(data, "kto", "better")
        assert any("each gives a desirable and an undesirable answer" in note for note in planned.notes)
        pair = lines(create_run(planned), "train")[:2]
        assert [(row["completion"][0]["content"], row["label"]) for row in pair] == [("good", True), ("bad", False)]
        assert pair[0]["id"] != pair[1]["id"]
        assert pair[0]["group"] == pair[1]["group"]

    def test_sft_learns_only_the_desirable_of_labelled_answers(self, data: Workspace, tmp_path: Path) -> None:
        rows = [{"prompt": f"q{n}", "completion": f"a{n}", "label": n % 2 == 0} for n in range(40)]
        (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        add_dataset(data, tmp_path / "judged.jsonl")
        planned = plan(data, "sft", "judged")
        assert any("only its desirable answers" in note for note in planned.notes)
        run = create_run(planned)
        answers = {row["completion"][0]["content"] for side in ("train", "eval") for row in lines(run, side)}
        assert answers == {f"a{n}" for n in range(0, 40, 2)}

    def test_several_datasets_are_joined(self, data: Workspace) -> None:
        run = create_run(plan(data, "sft", "demos", "texts"))
        assert len(lines(run, "train")) + len(lines(run, "eval")) == 80
        assert run.config().data.names == ("demos", "texts")

    def test_what_a_method_cannot_use_is_refused_with_what_it_needs(self, data: Workspace) -> None:
        with pytest.raises(UsageError, match="workbench pairs make"):
            plan(data, "dpo", "answers")
        with pytest.raises(UsageError, match="needs prompt-completion or messages or text or preference"):
            plan(data, "sft", "questions")
        with pytest.raises(NotFound, match="There are: answers, better"):
            plan(data, "sft", "nothing")

    def test_no_row_left_to_train_on(self, data: Workspace) -> None:
        with pytest.raises(Exception, match="no example is left"):
            create_run(plan(data, "sft", "demos", eval_share=0.9999999))
        assert list(data.runs.iterdir()) == []


class TestConfig:
    def test_run_toml_is_complete_and_says_what_was_frozen(self, data: Workspace) -> None:
        run = create_run(plan(data, "sft", "demos", name="mine"))
        written = tomllib.loads(run.folder.config_path.read_text())
        train = (run.folder.data / "train.jsonl").read_bytes()
        assert written["data"]["train_sha256"] == hashlib.sha256(train).hexdigest()
        assert written["data"]["train_rows"] == train.count(b"\n")
        assert written["run"]["id"] == run.id
        assert "-sft-mine-" in run.id
        assert written["model"]["source"] == "sample"
        assert written["train"]["device"] == "cpu"
        assert written["train"]["threads"] > 0
        assert [event["kind"] for event in run.events()] == ["created"]

    def test_a_recipe_that_is_not_there(self, data: Workspace, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match=r"missing\.toml does not exist"):
            plan(data, "sft", "demos", recipe=tmp_path / "missing.toml")

    def test_layers(self, data: Workspace, tmp_path: Path) -> None:
        recipe = tmp_path / "r.toml"
        recipe.write_text('[optim]\nlr = 1e-3\nweight_decay = 0.5\n[dpo]\nbeta = 0.3\n[train]\ndevice = "cuda"\n')
        made = plan(data, "sft", "demos", recipe=recipe, settings=("lr=2e-3",), device="cpu").resolved
        assert (made.config.optim.lr, made.config.optim.weight_decay, made.config.optim.eps) == (2e-3, 0.5, 1e-8)
        assert [made.origins[f"optim.{key}"] for key in ("lr", "weight_decay", "eps")] == [
            "--set", "recipe r.toml", "default",
        ]  # fmt: skip
        assert (made.config.train.device, made.origins["train.device"]) == ("cpu", "--device")

    def test_any_run_toml_is_a_recipe(self, data: Workspace) -> None:
        first = create_run(plan(data, "sft", "demos", settings=("optim.lr=7e-4",)))
        again = plan(data, "sft", model="", recipe=first.folder.config_path)
        assert again.resolved.config.optim.lr == 7e-4
        assert again.resolved.config.data.names == ("demos",)
        assert again.resolved.config.data.train_sha256 == ""
        assert again.run_id != first.id

    def test_an_unknown_key_names_the_nearest(self, data: Workspace, tmp_path: Path) -> None:
        recipe = tmp_path / "r.toml"
        recipe.write_text("[optim]\nlearning_rat = 1\n")
        with pytest.raises(ConfigError, match=r"r\.toml: \[optim\] has no key learning_rat"):
            plan(data, "sft", "demos", recipe=recipe)

    def test_what_is_missing_is_named(self, data: Workspace) -> None:
        with pytest.raises(UsageError, match="--data"):
            plan(data, "sft")
        with pytest.raises(UsageError, match="--model M"):
            plan(data, "sft", "demos", model="")
        with pytest.raises(UsageError, match="--reward-model"):
            plan(data, "ppo", "questions")
        with pytest.raises(UsageError, match="goes with train ppo"):
            plan(data, "sft", "demos", reward_models=("sample",))

    def test_a_device_that_is_not_there_is_refused(self, data: Workspace) -> None:
        with pytest.raises(WorkbenchError, match="--device cpu"):
            plan(data, "sft", "demos", device="cuda")


class TestChat:
    """How conversations become text is settled at launch, whatever happens to the files it came from."""

    def test_the_models_own_template_is_frozen_with_its_special_tokens(self, data: Workspace) -> None:
        run = create_run(plan(data, "sft", "demos"))
        chat = run.config().chat
        text = run.folder.chat_template_path.read_bytes()
        assert chat.template == ""
        assert hashlib.sha256(text).hexdigest() == chat.template_sha256
        assert min(chat.eos_id, chat.end_of_turn_id, chat.pad_id) >= 0

    def test_a_named_template_wins_and_its_path_is_written_out(
        self, data: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "own.jinja").write_text("{{ messages[0].content ~ end }}")
        monkeypatch.chdir(tmp_path)
        run = create_run(plan(data, "sft", "demos", settings=("chat.template=own.jinja", "chat.arguments=end=!")))
        assert run.folder.chat_template_path.read_text() == "{{ messages[0].content ~ end }}"
        assert run.config().chat.template == str(tmp_path / "own.jinja")

    @pytest.mark.parametrize(
        ("setting", "reason"),
        [
            ("chat.template=none.jinja", "cannot be read"),
            ("chat.arguments=enable_thinking", "is no name of an argument"),
            ("chat.eos=<|nothing|>", "no token of"),
        ],
    )
    def test_what_cannot_be_is_said_before_anything_is_written(
        self, data: Workspace, setting: str, reason: str
    ) -> None:
        with pytest.raises(EngineError, match=reason):
            plan(data, "sft", "demos", settings=(setting,))
        assert not list(data.runs.iterdir())

    def test_the_dry_run_says_what_is_cut_and_how_chats_are_masked(self, data: Workspace, tmp_path: Path) -> None:
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there. " * 9}] * 2
        (tmp_path / "talks.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
        add_dataset(data, tmp_path / "talks.jsonl")
        facts = dry_run(plan(data, "sft", "talks", settings=("data.max_length=40",), eval_share=0.0))
        assert facts["sample"] == {
            "rows": 1, "examples": 1, "tokens": 40, "truncated": 1, "dropped": {},
            "treatments": {"conversation in one rendering": 1}, "refusal": "",
        }  # fmt: skip
        words = dry_run_fields(facts)
        assert words["cut"] == "1 of the first 1 rows lose their end at data.max_length"
        assert words["chats"] == "conversation in one rendering: 1 of the first 1 rows"
        assert "problem" not in words
        unusable = dry_run(plan(data, "sft", "talks", settings=("data.max_length=2",), eval_share=0.0))
        assert "nothing to train on" in dry_run_fields(unusable)["problem"]


class TestPpo:
    @pytest.fixture
    def base(self, data: Workspace) -> Path:
        base = make_model(data.root / "base")
        reward = make_run(data, "1124-reward-r-k3f", model="base", checkpoints=(4,))
        (reward.checkpoint_path(4) / "reward_head.safetensors").write_bytes(b"x")
        return base

    def test_policy_and_reward_model_share_one_base(self, data: Workspace, base: Path) -> None:
        run = create_run(plan(data, "ppo", "questions", model=str(base), reward_models=("run:r",)))
        model = run.config().model
        assert (model.path, model.reward_path) == ("base", "base")
        assert model.reward_adapter == "runs/1124-reward-r-k3f/checkpoints/step-000004"
        assert model.reward_source == "run:1124-reward-r-k3f@4"
        assert set(lines(run, "train")[0]) == {"id", "prompt", "tags"}

    def test_a_doubtful_reward_model_is_told_of_before_the_start(self, data: Workspace, base: Path) -> None:
        made = plan(data, "ppo", "questions", model=str(base), reward_models=("run:r",))
        (doubt,) = made.doubts
        assert doubt.startswith("the reward model run:1124-reward-r-k3f@4 was not measured on held-out pairs")
        assert doubt in made.notes
        assert dry_run(replace(plan(data, "sft", "demos"), doubts=made.doubts))["doubts"] == [doubt]

    def test_the_checkpoint_is_kept_for_it_while_its_own_run_goes_on(self, data: Workspace, base: Path) -> None:
        made = plan(data, "ppo", "questions", model=str(base), reward_models=("run:r",))
        reward = RunFolder(data.runs / "1124-reward-r-k3f")
        create_run(made)
        assert reward.needed_path(4).exists()
        assert reward.checkpoint_steps() == [4]

    def test_a_checkpoint_that_was_replaced_meanwhile_is_told_and_nothing_is_left(
        self, data: Workspace, base: Path
    ) -> None:
        made = plan(data, "ppo", "questions", model=str(base), reward_models=("run:r",))
        (data.runs / "1124-reward-r-k3f" / "checkpoints" / "step-000004" / MANIFEST).unlink()
        with pytest.raises(NotFound, match="has just replaced its checkpoint step-000004 by a newer one. Start again"):
            create_run(made)
        assert data.names("runs") == ["1124-reward-r-k3f"]

    def test_prompts_come_from_a_preference_set_too(self, data: Workspace, base: Path) -> None:
        run = create_run(plan(data, "ppo", "prefs", model=str(base), reward_models=("run:r",)))
        assert len(lines(run, "train")) + len(lines(run, "eval")) == 40

    def test_another_base_is_held_beside_the_model_and_counted(self, data: Workspace, base: Path) -> None:
        made = plan(data, "ppo", "questions", model=str(base), reward_models=("run:r",))
        assert (made.rewards.apart, made.resolved.config.rewards.apart_parameters) == ((), 0)
        other = plan(data, "ppo", "questions", model="sample", reward_models=("run:r",))
        assert [one.source for one in other.rewards.apart] == ["run:1124-reward-r-k3f@4"]
        assert any("held beside the model" in note and "no adapter over the same base" in note for note in other.notes)

    def test_without_a_reward_head_it_is_refused(self, data: Workspace, base: Path) -> None:
        with pytest.raises(UsageError, match="no reward head"):
            plan(data, "ppo", "questions", model=str(base), reward_models=(str(base),))


class TestPreview:
    def type_(self, data: Workspace, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        common = ["--model", "sample", "--data", "demos"]
        assert main(["--workspace", str(data.root), "train", "sft", *common, *arguments]) == 0
        assert list(data.runs.iterdir()) == []
        return capsys.readouterr().out

    def test_dry_run_counts_and_writes_nothing(self, data: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        facts = json.loads(self.type_(data, capsys, "--dry-run", "--json", "--set", "train.batch_size=7"))
        assert facts["train_rows"] + facts["eval_rows"] == 60
        assert facts["steps"] == -(-facts["train_rows"] // 7)
        assert facts["tokens_estimate"] > facts["train_rows"]
        assert "steps" in self.type_(data, capsys, "--dry-run")

    def test_print_config_is_a_recipe_with_origins(
        self, data: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        text = self.type_(data, capsys, "--print-config", "--set", "optim.lr=3e-4", "--device", "cpu")
        assert tomllib.loads(text)["data"]["names"] == ["demos"]
        found = {line.partition(" ")[0]: line.rpartition("# ")[2] for line in text.splitlines() if "# " in line}
        assert [found[key] for key in ("lr", "eps", "device", "names")] == ["--set", "default", "--device", "--data"]
        recipe = tmp_path / "printed.toml"
        recipe.write_text(text)
        assert plan(data, "sft", "demos", recipe=recipe).resolved.config.optim.lr == 3e-4

    def test_gpus_are_processes(self, data: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        three = [gpus.Gpu(i, f"GPU-{i}", "NVIDIA H100", 81559, 0, "550.54.15") for i in range(3)]
        monkeypatch.setattr(gpus, "installed_gpus", lambda: three)
        monkeypatch.setattr(gpus, "torch_usable", lambda: None)
        resolved = plan(data, "sft", "demos", gpus=(0, 2)).resolved
        assert (resolved.config.train.device, resolved.config.train.processes) == ("cuda", 2)
        assert resolved.origins["train.processes"] == "--gpus"
        assert gpu_environment((0, 2)) == {"CUDA_VISIBLE_DEVICES": "0,2"}
        with pytest.raises(UsageError, match=r"--gpus 3: there are: 0, 1, 2"):
            plan(data, "sft", "demos", gpus=(0, 3))
        with pytest.raises(UsageError, match=r"train\.processes is 4, .* there are 3 here"):
            plan(data, "sft", "demos", settings=("train.processes=4",))
        monkeypatch.setattr("workbench.launch_device.usable_cores", lambda: 4)
        assert plan(data, "sft", "demos", settings=("train.processes=4",), device="cpu").resolved
        with pytest.raises(
            UsageError, match=r"train\.processes is 50, but there are 4 CPU cores .* Set it to 4 or less"
        ):
            plan(data, "sft", "demos", settings=("train.processes=50",), device="cpu")

    def test_wrong_use(self, data: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        for arguments, said in (
            (["--gpus", "0,one"], "expected indices"),
            (["--gpus", "1,1"], "named twice"),
            (["--gpus", "0,1"], "no NVIDIA device here"),
            (["--prompts", "questions"], "--data"),
            (["--set", "optim.lr=-1"], "must be > 0"),
            (["-f", "/nothing.toml"], "/nothing.toml"),
        ):
            common = ["train", "sft", "--model", "sample", "--data", "demos"]
            assert main(["--workspace", str(data.root), *common, *arguments]) in (1, 2)
            assert said in capsys.readouterr().err


class TestWhatIsLeftOut:
    """No row is lost without a count: in the dry run, on Launch, in the run's events and in `runs show`."""

    def test_a_prompt_that_comes_again(
        self, data: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [{"prompt": f"q{n % 20}", "completion": "a"} for n in range(50)]
        (tmp_path / "again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        add_dataset(data, tmp_path / "again.jsonl")
        left_out = LeftOut(2)
        found = list(examples_for(data, ["again", "questions"], "grpo", left_out=left_out))
        assert len(found) == 40
        assert left_out.by_source(["again", "questions"]) == {"again": {"a prompt that came before": 30}}
        assert left_out_words(left_out.total) == "30 rows (a prompt that came before: 30)"
        assert list(examples_for(data, ["again"], "sft")) != []

    def test_an_undesirable_answer_in_sft(
        self, data: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [{"prompt": f"q{n}", "completion": f"a{n}", "label": n % 4 != 0} for n in range(40)]
        (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        add_dataset(data, tmp_path / "judged.jsonl")
        planned = plan(data, "sft", "judged")
        words = "10 rows (an answer that is labelled undesirable: 10)"
        facts = dry_run(planned)
        assert dry_run_fields(facts)["left out"] == words
        assert f"left out: {words}" in cost_lines(facts)[1]
        run = create_run(planned)
        append_event(run.folder, "data", dropped={"too long": 2}, dropped_held_out={"too long": 1})
        assert main(["--workspace", str(data.root), "runs", "show", run.id]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert f"left out {words}" in told
        assert "dropped 3 rows (too long: 3)" in told

    def test_a_source_of_a_mixture_says_its_own(self, data: Workspace) -> None:
        facts = dry_run(plan(data, "sft", "demos", "chats"))
        assert [source["left_out"] for source in facts["sources"]] == [{}, {}]
        assert "left out" not in dry_run_fields(facts)


class TestWhatIsSetTwice:
    """A setting that another one makes idle is refused where a person asked for both, and nowhere else."""

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            (
                ("warmup_share=0.1", "warmup_steps=20"),
                r"warmup_share = 0\.1: .* optim\.warmup_steps = 20 .*Leave optim\.warmup_share",
            ),
            (("train.steps=20", "train.epochs=1"), r"epochs = 1\.0: .* train\.steps = 20 .*or set train\.steps=0"),
            (("kind=full", "dora=true"), r'dora = true: .* adapter\.kind = "full" \(--set\): all weights train'),
            (("kind=full", "r=8"), r"r = 8: .*or take adapter\.kind=lora"),
            (("decay_share=0.1",), r'decay_share = 0\.1: .* optim\.schedule = "linear" \(default\)'),
            (("schedule=constant", "min_lr_share=0.1"), r"min_lr_share .* a constant rate does not fall"),
        ],
    )
    def test_both_keys_are_named(self, data: Workspace, settings: tuple[str, ...], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            plan(data, "sft", "demos", settings=settings)

    def test_a_recipe_counts_as_far_as_it_was_written_by_hand(self, data: Workspace, tmp_path: Path) -> None:
        recipe = tmp_path / "recipe.toml"
        recipe.write_text("[train]\nepochs = 2.0\n")
        assert plan(data, "sft", "demos", recipe=recipe, settings=("train.steps=5",)).resolved.config.train.steps == 5
        recipe.write_text("[train]\nepochs = 2.0\nsteps = 5\n")
        with pytest.raises(ConfigError, match=r"recipe recipe\.toml: \[train\] epochs = 2\.0: means nothing"):
            plan(data, "sft", "demos", recipe=recipe)
        whole = plan(data, "sft", "demos", settings=("train.steps=5", "adapter.kind=full")).resolved.config
        recipe.write_text(to_toml(replace(whole, train=replace(whole.train, epochs=3.0))))
        assert plan(data, "sft", "demos", recipe=recipe).resolved.config.train.epochs == 3.0
        with pytest.raises(ConfigError, match=r"--set: \[train\] epochs = 4\.0: .* train\.steps = 5 \(recipe"):
            plan(data, "sft", "demos", recipe=recipe, settings=("train.epochs=4",))


class TestIds:
    def test_an_id_can_be_typed(self, workspace: Workspace) -> None:
        assert len(new_run_id(workspace, "dpo", "n" * 60)) <= 64
        with pytest.raises(UsageError):
            new_run_id(workspace, "dpo", "../x")

    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ("sample", "sample"),
            ("hf:Qwen/Qwen3-8B@abc", "qwen3-8b"),
            ("./models/My Model/", "my-model"),
            ("/x/SmolLM2-135M.Q4_1.gguf", "smollm2-135m.q4_1"),
            ("run:1124-sft-sample-k3f@40", "sample"),
            ("./…", "model"),
        ],
    )
    def test_a_name_comes_from_the_model(self, source: str, name: str) -> None:
        assert default_name(source) == name


def test_a_run_is_trained_by_its_supervisor_to_its_end(
    data: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way once: two steps of the sample model, in a session of its own."""
    settings = ["train.steps=2", "train.batch_size=4", "probe.prompts=0", "adapter.kind=lora", "train.threads=1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["train", "sft", "--model", "sample", "--data", "demos", "--wait", "--device", "cpu"]
    code = main(["--workspace", str(data.root), *arguments, *(x for s in settings for x in ("--set", s))])
    out, err = capsys.readouterr()
    assert code == 0, err
    run_id = out.strip()
    assert main(["--workspace", str(data.root), "runs", "show", run_id, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["state"], facts["step"], facts["checkpoints"][-1]) == ("done", 2, 2)
    assert main(["--workspace", str(data.root), "models"]) == 0
    assert f"run:{run_id}" in capsys.readouterr().out
