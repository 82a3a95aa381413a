"""Models side by side: an answer is generated once, and read, compared and judged from what was kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.workbench.run_folders import make_model, make_run
from workbench import generation
from workbench import kept_answers as kept_answers_file
from workbench.canonical_rows import PromptRow
from workbench.child_programs import run_program
from workbench.dataset_store import add_dataset
from workbench.errors import NotFound, UsageError
from workbench.generation import Answer, GenerationJob, Sampling, generate
from workbench.kept_answers import keep_answers, kept_answers
from workbench.model_names import ResolvedModel, resolve_model
from workbench.pair_generation import prompts_to_ask
from workbench.prompt_source import find_prompts
from workbench.side_by_side import (
    Setup,
    compare,
    facts_of,
    model_choices,
    opening_setup,
    prompt_choices,
    remember,
    remembered,
    short_names,
)
from workbench.workspace import Workspace, open_workspace

SETUP = Setup(("./one", "./two"), "asked", count=3)


@pytest.fixture
def asked(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with four prompts, and two models in the current folder."""
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps({"prompt": f"q{n}"}) + "\n" for n in range(4)))
    add_dataset(workspace, tmp_path / "asked.jsonl")
    for name in ("one", "two", "three"):
        make_model(tmp_path / name, name.encode())
    monkeypatch.chdir(tmp_path)
    return workspace


def keep(workspace: Workspace, setup: Setup, written: str, say: Callable[[int], str]) -> None:
    """Answers of a model as if it had been asked."""
    prompts = prompts_to_ask(find_prompts(workspace, setup.prompts), setup.count)
    answers = [Answer(row["id"], 0, say(n), True, 3, -1.5) for n, row in enumerate(prompts)]
    keep_answers(workspace, resolve_model(workspace, written), prompts, setup.sampling, answers)


class Child:
    """A stand-in for the child that holds torch: answers everything, and says who was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models: list[str] = []
        monkeypatch.setattr(generation, "run_program", self)

    def __call__(self, module: str, arguments: list[str], **_: object) -> dict[str, object]:
        for job in json.loads(Path(arguments[0]).read_text())["jobs"]:
            name = Path(job["model"]["path"]).name
            self.models.append(name)
            prompts = [json.loads(line) for line in Path(job["prompts"]).read_text().splitlines()]
            rows = [
                {"id": p["id"], "sample": 0, "completion": name, "stopped": True, "tokens": 2, "logprob": -1.0}
                for p in prompts
            ]
            Path(job["out"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {}


class TestAsking:
    def test_only_models_without_kept_answers_are_asked(
        self, asked: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        child = Child(monkeypatch)
        first = compare(asked, SETUP)
        assert (child.models, first.asked_now) == (["one", "two"], 2)
        again = compare(asked, replace(SETUP, models=("./two", "./three", "./one")))
        assert (child.models[2:], again.asked_now) == (["three"], 1)
        assert [answer.completion for answer in again.answers_to(0)] == ["two", "three", "one"]
        compare(asked, replace(SETUP, seed=2))
        assert child.models[3:] == ["one", "two"]  # another seed draws other answers

    def test_a_damaged_file_counts_as_missing(self, asked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        child = Child(monkeypatch)
        for damage in (b"", b"{", b'{"answers": [["x"]]}', b'{"answers": [["other:1", 0, "t", true, 1, 0]]}'):
            child.models.clear()
            for file in asked.blobs.glob("answers-*.json"):
                file.write_bytes(damage)
            assert compare(asked, SETUP).asked_now == 2
            assert child.models == ["one", "two"]

    def test_a_read_only_workspace_keeps_nothing(self, asked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        Child(monkeypatch)
        read_only = replace(asked, read_only_reason="it belongs to somebody else.")
        assert len(compare(read_only, SETUP).answered.prompts) == 3
        assert list(asked.blobs.iterdir()) == []

    def test_kept_answers_are_private_and_not_endless(self, asked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept_answers_file, "FILES_KEPT", 2)
        for number, seed in enumerate((1, 2, 3)):
            keep(asked, replace(SETUP, seed=seed), "./one", str)
            newest = max(asked.blobs.glob("answers-*.json"), key=lambda file: file.stat().st_mtime_ns)
            os.utime(newest, (number, number))
        files = list(asked.blobs.glob("answers-*.json"))
        assert len(files) == 2
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)

    @pytest.mark.parametrize(
        ("setup", "said"),
        [
            (replace(SETUP, models=("./one",)), "1 model is picked"),
            (replace(SETUP, models=("./one",) * 5), "5 models are picked"),
            (replace(SETUP, prompts=""), "no prompts"),
            (replace(SETUP, count=0), "expected 1 to"),
            (replace(SETUP, models=("./one", "./one/")), "the same weights"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(self, asked: Workspace, setup: Setup, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            compare(asked, setup)

    @pytest.mark.slow
    def test_the_sample_model_answers_for_real_and_says_how_far_it_is(self, asked: Workspace, tmp_path: Path) -> None:
        sample = resolve_model(asked, "sample")
        other = shutil.copytree(sample.path, tmp_path / "other")
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, "note": "other bytes, the same weights"}))
        told: list[tuple[float, float, str]] = []
        setup = Setup(("sample", "./other"), "asked", count=2, max_new_tokens=8)
        found = compare(asked, setup, progress=lambda *how_far: told.append(how_far), threads=1)
        assert found.asked_now == 2
        assert found.answers_to(0)[0].completion
        assert found.all_agree(0)
        assert told[-1][:2] == (4, 4)
        assert {words for done, _, words in told if done} == {"sample", "./other"}
        assert compare(asked, setup).asked_now == 0


def test_progress_is_over_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models, three prompts each; one prompt leaves the second model no room."""
    prompts: list[PromptRow] = [{"id": f"d:{n}", "prompt": "q", "tags": {}} for n in range(3)]
    jobs = [GenerationJob(ResolvedModel(name, Path("/m")), prompts, Sampling()) for name in ("one", "two")]
    told: list[tuple[float, float, str]] = []

    def run(module: str, arguments: list[str], **options: Callable[[float, float, str], None]) -> dict[str, object]:
        for how_far in ((0, 0, ""), (2, 3, "job 1 of 2: answers of x"), (2, 2, "job 2 of 2: answers of y")):
            options["progress"](*how_far)
        for job in json.loads(Path(arguments[0]).read_text())["jobs"]:
            rows = [
                {"id": p["id"], "sample": 0, "completion": "c", "stopped": True, "tokens": 1, "logprob": 0.0}
                for p in prompts
            ]
            Path(job["out"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {}

    monkeypatch.setattr(generation, "run_program", run)
    generate(jobs, quiet=True, progress=lambda *how_far: told.append(how_far))
    assert told == [(0, 6, ""), (2, 6, "one"), (6, 6, "two")]


def test_a_silent_child_is_ended_when_its_work_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / "slow_child.py").write_text(
        "import os, time\nprint('not json')\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        'print(\'{"done": 1, "total": 2, "what": "half"}\', flush=True)\ntime.sleep(60)\n'
    )
    told: list[tuple[float, float, str]] = []

    class Enough(Exception):
        pass

    def progress(done: float, total: float, words: str) -> None:
        told.append((done, total, words))
        if told.count((1, 2, "half")) == 3:
            raise Enough

    with pytest.raises(Enough):
        run_program(
            "slow_child", [], what="trying", quiet=True, environment={"PYTHONPATH": str(tmp_path)}, progress=progress
        )
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


class TestArena:
    def test_two_of_three_models_go_to_a_blind_arena_without_being_asked_again(self, asked: Workspace) -> None:
        for written, texts in (("./one", "abc"), ("./two", "xyz"), ("./three", "xbz")):
            keep(asked, SETUP, written, lambda n, texts=texts: texts[n])  # type: ignore[misc]
        found = compare(asked, replace(SETUP, models=("./one", "./two", "./three")))
        assert [found.differing(0, 1), found.differing(0, 2), found.differing(1, 2)] == [3, 2, 1]
        made = found.as_arena("blind", 0, 2)
        assert [model["source"] for model in made.info.source["models"]] == ["./one", "./three"]
        assert {(pair.source_a, pair.a[0]["content"]) for pair in made.pairs()} <= {  # type: ignore[index]
            ("./one", "a"), ("./one", "c"), ("./three", "x"), ("./three", "z"),
        }  # fmt: skip
        assert made.info.identical_left_out == 1
        assert made.info.source["sampling"]["temperature"] == 1.0


class TestBeginning:
    def test_what_was_compared_last_is_remembered(self, workspace: Workspace) -> None:
        assert remembered(workspace) == Setup()
        setup = Setup(("sample", "run:x"), "d", 3, 0.0, 12, 7)
        remember(workspace, setup)
        assert remembered(open_workspace(workspace.root)) == setup
        (workspace.blobs / "compare.json").write_text('{"models": 3}')
        assert remembered(workspace) == Setup()

    def test_a_run_is_compared_with_what_it_began_from(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-first-aaa", adapter_kind="full", checkpoints=(2, 4))
        opening, problem = opening_setup(workspace, "1124-sft-first-aaa")
        assert (opening.models, problem) == (("sample", "run:1124-sft-first-aaa"), "")

    def test_without_a_run_it_is_the_newest_and_the_last_comparison_wins(self, workspace: Workspace) -> None:
        assert opening_setup(workspace)[0].models == ()
        make_run(workspace, "1124-sft-old-aaa", adapter_kind="full", checkpoints=(2,))
        make_run(
            workspace, "1124-dpo-new-bbb", adapter_kind="full", checkpoints=(2,), created="2026-11-24T11:00:00+00:00"
        )
        assert opening_setup(workspace)[0].models == ("sample", "run:1124-dpo-new-bbb")
        remember(workspace, Setup(("sample", "run:1124-sft-old-aaa")))
        assert opening_setup(workspace)[0].models == ("sample", "run:1124-sft-old-aaa")
        remember(workspace, Setup(("sample", "run:1124-sft-gone-ccc")))
        assert opening_setup(workspace)[0].models == ("sample", "run:1124-dpo-new-bbb")

    def test_a_run_without_a_checkpoint_says_so(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-first-aaa")
        opening, problem = opening_setup(workspace, "1124-sft-first-aaa")
        assert opening.models == ()
        assert "no checkpoint" in problem

    def test_reward_models_are_not_offered(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-reward-r-aaa", adapter_kind="full", checkpoints=(2,))
        assert [model.name for model in model_choices(workspace, ["./x"])] == ["sample", "./x"]

    def test_prompts_come_before_answers_and_texts_are_no_prompts(self, workspace: Workspace, tmp_path: Path) -> None:
        rows = {"a": {"prompt": "q", "completion": "c"}, "b": {"prompt": "q"}, "c": {"text": "t"}}
        for name, row in rows.items():
            (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
            add_dataset(workspace, tmp_path / f"{name}.jsonl")
        assert [choice.name for choice in prompt_choices(workspace)] == ["b", "a"]
        assert opening_setup(workspace)[0].prompts == "b"


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["sample", "run:1124-dpo-qwen-k3f@20"], ["sample", "dpo"]),
        (["run:1124-dpo-a-k3f@20", "run:1124-dpo-b-c-x1x@9", "sample"], ["dpo-k3f", "dpo-x1x", "sample"]),
        (["run:1124-dpo-a-k3f@20", "run:1123-dpo-b-k3f@9"], ["run:1124-dpo-a-k3f", "run:1123-dpo-b-k3f"]),
        (["run:1124-dpo-a-k3f@20", "run:1124-dpo-a-k3f@9"], ["run:1124-dpo-a-k3f@20", "run:1124-dpo-a-k3f@9"]),
        (["./m/x", "hf:org/y@main"], ["x", "y@main"]),
        (["./m/x", "./n/x"], ["./m/x", "./n/x"]),
    ],
)
def test_models_are_named_as_short_as_they_can_be_told_apart(sources: list[str], names: list[str]) -> None:
    assert short_names(sources) == names


def test_what_is_known_of_an_answer() -> None:
    assert facts_of(Answer("d", 0, "t", True, 4, -2.0)) == ("4 tokens", "log-prob -2.0", "-0.50 a token")
    assert facts_of(Answer("d", 0, "t", False, 1, float("nan"))) == ("cut off", "1 token")


def test_an_unknown_set_of_prompts_is_named(asked: Workspace) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        compare(asked, replace(SETUP, prompts="nowhere"))


def test_kept_answers_belong_to_their_prompts_and_sampling(asked: Workspace) -> None:
    keep(asked, SETUP, "./one", str)
    model = resolve_model(asked, "./one")
    prompts = prompts_to_ask(find_prompts(asked, "asked"), 3)
    assert [answer.completion for answer in kept_answers(asked, model, prompts, SETUP.sampling)] == ["0", "1", "2"]
    assert kept_answers(asked, model, prompts[:2], SETUP.sampling) == []
    assert kept_answers(asked, model, prompts, replace(SETUP.sampling, temperature=0.5)) == []
    assert kept_answers(asked, model, prompts, replace(SETUP.sampling, threads=1, device="cpu")) != []
