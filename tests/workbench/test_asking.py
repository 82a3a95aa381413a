"""Models of this machine are asked block by block: what a block has answered outlives whatever ends the rest."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sample_data import ROOT
from workbench import asking, generation
from workbench.asking import ask
from workbench.canonical_rows import PromptRow, user
from workbench.errors import WorkbenchError
from workbench.generation import Sampling
from workbench.model_names import ResolvedModel
from workbench.workspace import Workspace, init

PROMPTS: list[PromptRow] = [{"id": f"d:{n}", "prompt": [user(f"q{n}")], "tags": {}} for n in range(7)]
MODELS = [ResolvedModel(name, Path(f"/nowhere/{name}"), sha256=name) for name in ("one", "two")]
SAMPLING = Sampling(samples=2)


class Child:
    """A stand-in for the child that holds torch: it writes each job's answers, tells, and dies where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dies_after: int = 99, without: tuple[str, ...] = ()) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.dies_after, self.without = dies_after, without
        monkeypatch.setattr(generation, "run_program", self)
        monkeypatch.setattr(asking, "BLOCK", 4)

    def __call__(self, module: str, arguments: list[str], *, progress: Callable[..., None], **_: Any) -> dict[str, Any]:
        jobs = json.loads(Path(arguments[0]).read_text())["jobs"]
        for number, job in enumerate(jobs, start=1):
            if number > self.dies_after:
                raise WorkbenchError("answering: it was ended by SIGKILL")
            rows = [json.loads(line) for line in Path(job["prompts"]).read_text().splitlines()]
            name = Path(job["model"]["path"]).name
            self.asked.append((name, [row["id"] for row in rows]))
            answers = [
                {"id": row["id"], "sample": j, "completion": f"{name} {j}", "stopped": True, "tokens": 1, "logprob": -1}
                for row in rows if row["id"] not in self.without for j in range(job["samples"])
            ]  # fmt: skip
            Path(job["out"]).write_text("".join(json.dumps(one) + "\n" for one in answers))
            progress(len(answers), len(answers), f"job {number} of {len(jobs)}: answers of {name}")
        return {}


def test_a_block_that_is_done_outlives_the_rest(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(monkeypatch, dies_after=5)
    with pytest.raises(WorkbenchError, match=r"SIGKILL 18 answers are kept: the same again goes on from there"):
        ask(MODELS, PROMPTS, SAMPLING, keep_in=workspace, quiet=True)
    assert [ids for _, ids in child.asked[:2]] == [["d:0", "d:1"], ["d:2", "d:3"]]
    child.dies_after = 99
    far: list[float] = []
    found, now = ask(MODELS, PROMPTS, SAMPLING, keep_in=workspace, quiet=True, progress=lambda d, t, w: far.append(d))
    assert child.asked[5:] == [("two", ["d:2", "d:3"]), ("two", ["d:4", "d:5"]), ("two", ["d:6"])]
    assert (now, far, [len(answers) for answers in found]) == (2, [22, 26, 28], [14, 14])
    assert {one.completion for one in found[1]} == {"two 0", "two 1"}
    assert ask(MODELS, PROMPTS, SAMPLING, keep_in=workspace, quiet=True)[1] == 0
    assert len(child.asked) == 8


def test_who_has_enough_keeps_what_was_answered(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(monkeypatch)

    def enough(done: float, total: float, words: str) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(MODELS[:1], PROMPTS, SAMPLING, keep_in=workspace, quiet=True, progress=enough)
    child.asked.clear()
    ask(MODELS[:1], PROMPTS, SAMPLING, keep_in=workspace, quiet=True)
    assert [ids for _, ids in child.asked] == [["d:4", "d:5"], ["d:6"]]


def test_a_block_without_room_is_no_fault_and_a_model_without_any_answer_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    Child(monkeypatch, without=("d:0", "d:1", "d:5"))
    [found], _ = ask(MODELS[:1], PROMPTS, SAMPLING, keep_in=workspace, quiet=True)
    assert list(dict.fromkeys(one.prompt_id for one in found)) == ["d:2", "d:3", "d:4", "d:6"]
    Child(monkeypatch, without=tuple(row["id"] for row in PROMPTS))
    with pytest.raises(WorkbenchError, match="two: none of 7 prompts was answered"):
        ask(MODELS[1:], PROMPTS, SAMPLING, keep_in=workspace, quiet=True)


def test_without_a_workspace_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(monkeypatch)
    for _ in range(2):
        ask(MODELS[:1], PROMPTS, SAMPLING, quiet=True)
    assert len(child.asked) == 8


@pytest.mark.slow
def test_a_set_that_was_killed_while_the_sample_model_answered_is_that_of_an_unbroken_run(tmp_path: Path) -> None:
    asked = str(ROOT / "data" / "prompts_train.jsonl")
    make = ["pairs", "make", "p", "--prompts", "prompts", "--model", "sample", "--samples", "2", "--limit", "250",
            "--max-new-tokens", "32", "--device", "cpu", "--threads", "1", "--pairing", "all"]  # fmt: skip

    def command(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "workbench", *arguments], stderr=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL)  # fmt: skip

    for name in ("broken", "whole"):
        made = init(tmp_path / name)
        assert command("data", "add", asked, "--name", "prompts", "--workspace", str(made.root)).wait() == 0
    where = tmp_path / "broken" / "blobs"
    first = command(*make, "--workspace", str(tmp_path / "broken"))
    while not [part for part in where.glob("*.part") if part.read_bytes().count(b"\n") >= asking.BLOCK]:
        assert first.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    first.kill()
    first.wait()
    assert not (tmp_path / "broken" / "pairs" / "p").exists()
    for name in ("broken", "whole"):
        assert command(*make, "--workspace", str(tmp_path / name)).wait() == 0
    sets = [(tmp_path / name / "pairs" / "p" / "pairs.parquet").read_bytes() for name in ("broken", "whole")]
    assert sets[0] == sets[1]
