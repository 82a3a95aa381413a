"""Reward functions from the command line: found, shown before they are approved, frozen into the run, cloned."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.rewards.approvals import approvals
from engine.run.config_toml import read_config
from tests.workbench.run_folders import make_model, make_run
from workbench.cli import main
from workbench.command_rewards import HASH_CHARACTERS
from workbench.dataset_store import add_dataset
from workbench.errors import UsageError, WorkbenchError
from workbench.launch_draft import Draft
from workbench.launch_form import Surroundings, fields_of, problem_of
from workbench.launch_rewards import Unapproved, lines_to_read, split_weight
from workbench.run_clone import clone_request
from workbench.run_control import prepare_resume
from workbench.run_launch import LaunchRequest, Plan, create_run, plan_run
from workbench.run_list import Run
from workbench.run_preview import dry_run
from workbench.workspace import Workspace

SOURCE = 'def positive(prompts, completions):\n    """Counts."""\n    return [0.0 for _ in completions]\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))  # no GPU
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lexicon.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def data(workspace: Workspace, tmp_path: Path) -> Workspace:
    rows = [{"question": f"q{n}", "answer": f"a{n}", "level": n % 3} for n in range(30)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    add_dataset(workspace, tmp_path / "sums.jsonl")
    return workspace


def plan(workspace: Workspace, *rewards: str, **options: Any) -> Plan:
    request = LaunchRequest("grpo", options.pop("model", "sample"), ("sums",), rewards=rewards, **options)
    return plan_run(workspace, request, quiet=True)


def approve(path: str = "lexicon.py") -> str:
    import hashlib

    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert main(["rewards", "approve", path, "--sha256", sha256]) == 0
    return sha256


@pytest.mark.parametrize(
    ("written", "what", "weight"),
    [
        ("lexicon.py:positive", "lexicon.py:positive", None),
        ("lexicon.py:positive:0.3", "lexicon.py:positive", 0.3),
        ("judges.exact:inf:-2", "judges.exact:inf", -2.0),
        ("judges.exact:inf:0", "judges.exact:inf", 0.0),
        ("judges.exact:inf", "judges.exact:inf", None),
        ("run:1124", "run:1124", None),
        ("run:1124-r@20:0.5", "run:1124-r@20", 0.5),
    ],
)
def test_a_weight_stands_behind_the_last_colon(written: str, what: str, weight: float | None) -> None:
    assert split_weight(written, "--reward") == (what, weight)


@pytest.mark.parametrize(
    ("rewards", "says"),
    [
        (("lexicon.py:positive:1e999",), "must be a finite number"),
        (("lexicon.py:positive:0",), "all rewards have the weight 0, which only watches"),
        (("lexicon.py:positive", "lexicon.py:positive:2"), "given twice"),
        ((), "say what judges the answers: --reward-model M"),
    ],
)
def test_what_cannot_be_is_refused(data: Workspace, rewards: tuple[str, ...], says: str) -> None:
    approve()
    with pytest.raises(UsageError, match=says):
        plan(data, *rewards)


def test_other_methods_have_no_rewards(data: Workspace) -> None:
    with pytest.raises(UsageError, match="--reward goes with train ppo, grpo, rloo, not with sft"):
        plan_run(data, LaunchRequest("sft", "sample", ("sums",), rewards=("lexicon.py:positive",)), quiet=True)


class TestApproval:
    def test_a_file_is_shown_with_the_command_that_approves_it(
        self, data: Workspace, here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train = ["--workspace", str(data.root), "train", "grpo", "--model", "sample", "--prompts", "sums"]
        train += ["--reward", "lexicon.py:positive", "--print-config"]
        assert main(train) == 1
        said = capsys.readouterr().err
        assert f"positive in {here / 'lexicon.py'}, sha256 " in said
        assert "   1  def positive(prompts, completions):" in said
        sha256 = approve()
        assert f"workbench rewards approve {here / 'lexicon.py'} --sha256 {sha256}" in said
        assert main(train) == 0
        assert 'functions = ["lexicon.py:positive"]' in capsys.readouterr().out

    def test_a_changed_file_needs_it_again_and_shows_what_changed(self, data: Workspace, here: Path) -> None:
        approve()
        (here / "lexicon.py").write_text(SOURCE.replace("0.0", "1.0"))
        with pytest.raises(Unapproved, match="has changed since it was approved on") as caught:
            plan(data, "lexicon.py:positive")
        lines = lines_to_read(caught.value.function)
        assert "-    return [0.0 for _ in completions]" in lines
        assert "+    return [1.0 for _ in completions]" in lines

    def test_without_a_terminal_the_hash_must_be_given_and_be_right(
        self, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: False)
        assert main(["rewards", "approve", "lexicon.py"]) == 2
        assert "say which content you have read" in capsys.readouterr().err
        assert main(["rewards", "approve", "lexicon.py", "--sha256", "0" * 64]) == 2
        assert "not the content that you have read" in capsys.readouterr().err
        assert approvals() == {}

    @pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1)])
    def test_in_a_terminal_it_is_shown_and_asked(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, code: int
    ) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("builtins.input", lambda: answer)
        assert main(["rewards", "approve", "lexicon.py"]) == code
        assert "def positive" in capsys.readouterr().out
        assert len(approvals()) == (code == 0)

    def test_approvals_are_listed_and_taken_back(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        sha256 = approve()
        (here / "lexicon.py").write_text(SOURCE + "\n")
        capsys.readouterr()
        assert main(["rewards", "ls", "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["approved"]
        assert (row["sha256"], row["file"], row["file_now"]) == (sha256, str(here / "lexicon.py"), "changed")
        assert main(["rewards", "revoke", sha256[:HASH_CHARACTERS]]) == 0
        assert approvals() == {}
        assert main(["rewards", "revoke", "lexicon.py"]) == 1


class TestRun:
    @pytest.fixture
    def run(self, data: Workspace) -> Run:
        approve()
        return create_run(plan(data, "lexicon.py:positive:0.3", settings=("rewards.time_limit_s=5",)))

    def test_run_toml_says_everything_and_the_copy_is_frozen(self, data: Workspace, run: Run, here: Path) -> None:
        rewards = run.config().rewards
        assert (rewards.functions, rewards.function_weights) == (("lexicon.py:positive",), (0.3,))
        assert rewards.function_files == (str(here / "lexicon.py"),)
        assert rewards.time_limit_s == 5
        (copy,) = run.folder.rewards.iterdir()
        assert copy.name == f"{rewards.function_sha256[0][:12]}-lexicon.py"
        assert (copy.read_text(), copy.stat().st_mode & 0o777) == (SOURCE, 0o600)
        assert run.config().model.reward_adapter == ""

    def test_the_rows_bring_their_columns_and_their_answer(self, run: Run) -> None:
        row = json.loads((run.folder.data / "train.jsonl").read_text().splitlines()[0])
        number = row["prompt"][0]["content"].removeprefix("q")
        assert row["reference"] == f"a{number}"
        assert row["tags"] == {"level": int(number) % 3}

    def test_a_clone_takes_the_runs_copy_whatever_the_file_says_now(
        self, data: Workspace, run: Run, here: Path
    ) -> None:
        (here / "lexicon.py").write_text("something else")
        again = create_run(plan_run(data, clone_request(run), quiet=True))
        assert again.config().rewards.function_sha256 == run.config().rewards.function_sha256
        assert again.config().rewards.function_weights == (0.3,)
        assert [copy.name for copy in again.folder.rewards.iterdir()] == [
            copy.name for copy in run.folder.rewards.iterdir()
        ]

    def test_a_clone_of_a_run_whose_function_failed_takes_a_mended_one(
        self, data: Workspace, run: Run, here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from engine.run.status import Status, write_status

        what = "reward positive (0123-lexicon.py) raised ZeroDivisionError: division by zero (line 2)"
        write_status(run.folder, Status(run=run.id, phase="failed", step=1, attempt=1, error={"what": what}))
        where = ["--workspace", str(data.root), "runs"]
        assert main([*where, "show", run.id]) == 0
        assert f"runs clone {run.id} --reward FILE.py:NAME" in capsys.readouterr().out
        (here / "mended.py").write_text(SOURCE + "# mended\n")
        sha256 = approve("mended.py")
        capsys.readouterr()
        assert main([*where, "clone", run.id, "--reward", "mended.py:positive:0.5", "--print-config"]) == 0
        config = tomllib.loads(capsys.readouterr().out)
        assert config["rewards"]["function_sha256"] == [sha256]
        assert config["rewards"]["function_weights"] == [0.5]

    def test_a_resume_on_a_machine_that_has_not_approved_it_is_refused_at_once(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from engine.errors import NotApproved
        from engine.run.status import Status, write_status

        write_status(run.folder, Status(run=run.id, phase="failed", step=1, attempt=1))
        prepare_resume(run)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
        with pytest.raises(NotApproved, match="not approved on this machine"):
            prepare_resume(run)

    def test_show_and_dry_run_name_the_rewards(
        self, data: Workspace, run: Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--workspace", str(data.root), "runs", "show", run.id]) == 0
        assert "lexicon.py:positive:0.3" in capsys.readouterr().out
        assert dry_run(plan(data, "lexicon.py:positive:0.3"))["rewards"] == ["lexicon.py:positive:0.3"]


def test_a_reward_model_has_a_weight_beside_functions(data: Workspace) -> None:
    base = make_model(data.root / "base")
    reward = make_run(data, "1124-reward-r-k3f", model="base", checkpoints=(4,))
    (reward.checkpoint_path(4) / "reward_head.safetensors").write_bytes(b"x")
    approve()
    run = create_run(plan(data, "lexicon.py:positive", model=str(base), reward_models=("run:r:0.7",)))
    config = read_config(run.folder.config_path)
    assert config.model.reward_source == "run:1124-reward-r-k3f@4"
    assert (config.rewards.model_weight, config.rewards.function_weights) == (0.7, (1.0,))
    assert clone_request(run).reward_models == ("run:1124-reward-r-k3f@4:0.7",)


class TestForm:
    around = Surroundings((), (), (("sums", "prompt-completion"),))

    def test_functions_are_a_field_of_methods_on_rollouts(self) -> None:
        keys = {method: [one.key for one in fields_of(Draft(method), self.around)] for method in ("sft", "grpo")}
        assert "rewards" in keys["grpo"]
        assert "rewards" not in keys["sft"]

    def test_what_is_wrong_stands_beside_it(self, here: Path) -> None:
        draft = Draft("grpo", rewards="lexicon.py:positive:0.3")
        assert problem_of(draft, self.around, "rewards") == f"not approved: workbench rewards approve {here}/lexicon.py"
        assert problem_of(draft, self.around, "reward_model") == ""
        approve()
        assert problem_of(draft, self.around, "rewards") == ""
        assert "no function none" in problem_of(draft.put("rewards", "lexicon.py:none"), self.around, "rewards")
        assert draft.request().rewards == ("lexicon.py:positive:0.3",)
        assert problem_of(Draft("grpo"), self.around, "reward_model") == "name a model"


def test_unapproved_is_an_error_of_the_workbench() -> None:
    assert issubclass(Unapproved, WorkbenchError)
