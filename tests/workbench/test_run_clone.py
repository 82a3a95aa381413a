"""A clone asks for what its run was asked for, and for nothing that the run's own launch found out."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from engine.run import detached_start
from tests.workbench.run_folders import make_run
from workbench.cli import main
from workbench.dataset_store import add_dataset
from workbench.launch_device import usable_cores
from workbench.run_clone import changed_settings, clone_request
from workbench.run_launch import LaunchRequest, create_run, plan_run
from workbench.run_list import Run
from workbench.workspace import Workspace


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def data(workspace: Workspace, tmp_path: Path) -> Workspace:
    rows = [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(60)]
    (tmp_path / "demos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    add_dataset(workspace, tmp_path / "demos.jsonl")
    return workspace


def launched(workspace: Workspace, *settings: str, **options: object) -> Run:
    request = LaunchRequest("sft", "sample", ("demos",), settings=settings, **options)  # type: ignore[arg-type]
    return create_run(plan_run(workspace, request, quiet=True))


class TestRequest:
    def test_settings_come_back_as_they_were_typed(self, data: Workspace) -> None:
        typed = ("optim.lr=0.0003", "optim.schedule=cosine", "evaluation.at_start=false", 'checkpoint.metric=""')
        request = clone_request(launched(data, *typed, name="mine"))
        assert (request.method, request.model, request.data, request.name) == ("sft", "sample", ("demos",), "mine")
        assert set(request.settings) == set(typed)
        assert request.device == "cpu"

    def test_a_clone_trains_alike(self, data: Workspace) -> None:
        first = launched(data, "optim.lr=7e-06", "train.threads=3", eval_share=0.3)
        again = create_run(plan_run(data, clone_request(first), quiet=True))
        one, other = first.config(), again.config()
        assert replace(other, run=one.run) == one
        assert one.data.train_sha256 == other.data.train_sha256

    def test_a_clone_has_the_template_of_the_run_and_not_of_the_file(self, data: Workspace, tmp_path: Path) -> None:
        (tmp_path / "own.jinja").write_text("{{ messages[0].content ~ end }}")
        first = launched(data, f"chat.template={tmp_path / 'own.jinja'}", "chat.arguments=end=!")
        (tmp_path / "own.jinja").write_text("another")
        again = create_run(plan_run(data, clone_request(first), quiet=True))
        assert again.config().chat.template_sha256 == first.config().chat.template_sha256
        assert again.config().chat.arguments == "end=!"

    def test_a_run_from_before_such_a_refusal_is_cloned_without_what_it_never_used(self, data: Workspace) -> None:
        first = launched(data, "train.steps=4", "adapter.kind=full")
        text = first.folder.config_path.read_text()
        first.folder.config_path.write_text(text.replace("epochs = 1.0", "epochs = 3.0").replace("r = 16", "r = 4"))
        request = clone_request(first)
        assert set(request.settings) == {"train.steps=4", "adapter.kind=full"}
        assert plan_run(data, request, quiet=True).resolved.config.train.steps == 4

    def test_what_the_launch_found_is_not_asked_for(self, data: Workspace) -> None:
        run = launched(data)
        assert run.config().train.threads == usable_cores()
        assert clone_request(run).settings == ()
        assert "model.path" not in changed_settings(run.config())

    def test_a_model_folder_is_written_as_where_it_lies(self, data: Workspace) -> None:
        folder = make_run(data, "1124-sft-a-k3f", model="models/base")
        text = folder.config_path.read_text().replace('source = "sample"', 'source = "./base"')
        folder.config_path.write_text(text)
        request = clone_request(Run(folder, data))
        assert request.model == str(data.root / "models" / "base")


class TestCommand:
    def type_(self, workspace: Workspace, *arguments: str) -> int:
        return main(["--workspace", str(workspace.root), "runs", "clone", *arguments])

    def test_the_config_of_a_clone(self, data: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        run = launched(data, "optim.lr=0.0003", "train.seed=5")
        capsys.readouterr()
        assert self.type_(data, run.id, "--print-config", "--set", "train.seed=6", "--name", "other") == 0
        config = tomllib.loads(capsys.readouterr().out)
        assert (config["optim"]["lr"], config["train"]["seed"], config["run"]["name"]) == (0.0003, 6, "other")
        assert config["run"]["id"] != run.id

    def test_a_dry_run_starts_nothing(self, data: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        run = launched(data, "train.batch_size=7")
        assert self.type_(data, "-", "--dry-run", "--json") == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["steps"] == -(-facts["train_rows"] // 7)
        assert data.names("runs") == [run.id]

    def test_it_can_be_queued(
        self, data: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, calls = launched(data), []
        monkeypatch.setattr(
            detached_start, "start_detached", lambda path, **options: calls.append((path.name, options))
        )
        capsys.readouterr()
        assert self.type_(data, run.id, "--queue") == 0
        new = capsys.readouterr().out.strip()
        assert calls == [(new, {"env": {}, "queued": True})]
        assert sorted(data.names("runs")) == sorted([run.id, new])

    def test_a_wrong_setting_is_named(self, data: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        run = launched(data)
        assert self.type_(data, run.id, "--set", "optim.lr=-1") in (1, 2)
        assert "must be > 0" in capsys.readouterr().err
