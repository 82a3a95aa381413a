"""Answers come back in the order of the prompts; a prompt without room is left out, none at all is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import generation
from workbench.canonical_rows import PromptRow
from workbench.dataset_store import add_dataset
from workbench.errors import UsageError, WorkbenchError
from workbench.generation import GenerationJob, Sampling, generate
from workbench.model_names import ResolvedModel
from workbench.pair_generation import ask_models
from workbench.pair_sets import pairs_from_dataset
from workbench.preferences import freeze
from workbench.prompt_source import find_prompts
from workbench.workspace import Workspace

MODEL = ResolvedModel("one", Path("/base"), Path("/adapter"))
PROMPTS: list[PromptRow] = [{"id": f"d:{n}", "prompt": f"q{n}", "tags": {}} for n in range(3)]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A stand-in for the child: answers the prompts that it is told to, in a scrambled order."""
    told: dict[str, list[str]] = {"ids": [], "job": []}

    def run_program(module: str, arguments: list[str], **_: object) -> dict[str, object]:
        jobs = json.loads(Path(arguments[0]).read_text())["jobs"]
        told["job"].append(json.dumps(jobs))
        for job in jobs:
            rows = [
                {"id": one, "sample": s, "completion": f"{one} {s}", "stopped": True, "tokens": 2, "logprob": -1.0}
                for s in reversed(range(job["samples"]))
                for one in reversed(told["ids"])
            ]
            Path(job["out"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {}

    monkeypatch.setattr(generation, "run_program", run_program)
    return told


def test_answers_stand_in_the_order_of_the_prompts(answered: dict[str, list[str]]) -> None:
    answered["ids"] = ["d:0", "d:1", "d:2"]
    [found] = generate([GenerationJob(MODEL, PROMPTS, Sampling(samples=2, temperature=0.5))], quiet=True)
    assert [answer.completion for answer in found] == ["d:0 0", "d:0 1", "d:1 0", "d:1 1", "d:2 0", "d:2 1"]
    [job] = json.loads(answered["job"][0])
    assert job["model"] == {"path": "/base", "adapter": "/adapter"}
    assert (job["temperature"], job["samples"], "device" in job) == (0.5, 2, False)


def test_no_answer_at_all_is_an_error(answered: dict[str, list[str]]) -> None:
    with pytest.raises(WorkbenchError, match="lower --max-new-tokens"):
        generate([GenerationJob(MODEL, PROMPTS)], quiet=True)


def test_a_prompt_without_room_is_left_out_for_all_models(
    answered: dict[str, list[str]], workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"prompt": f"q{n}"}) + "\n" for n in range(3)))
    dataset = add_dataset(workspace, tmp_path / "d.jsonl")
    answered["ids"] = ["d:1", "d:3"]
    found = ask_models(find_prompts(workspace, dataset.name), [MODEL, MODEL], Sampling(), quiet=True)
    assert [prompt["id"] for prompt in found.prompts] == ["d:1", "d:3"]
    assert [len(answers) for answers in found.answers] == [2, 2]
    assert (found.source["asked"], found.source["too_long"]) == (3, 1)


def test_a_preference_set_gives_its_held_out_prompts(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(20)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs_from_dataset(workspace, "p", add_dataset(workspace, tmp_path / "d.jsonl"))
    frozen = freeze(workspace, "p", "f")
    held_out = [row["prompt"] for row in frozen.rows("eval")]
    asked = find_prompts(workspace, "f")
    assert 0 < len(held_out) < 20
    assert [row["prompt"] for row in asked.prompts()] == held_out
    assert asked.sha256 == frozen.info.files["eval.jsonl"]


def test_a_reward_model_does_not_write(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "q"}\n')
    dataset = add_dataset(workspace, tmp_path / "d.jsonl")
    (tmp_path / "reward_head.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="scores answers, it does not write them"):
        ask_models(find_prompts(workspace, dataset.name), [MODEL, ResolvedModel("r", tmp_path)], Sampling())
