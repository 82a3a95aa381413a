"""Letting models answer prompts, in one child process that holds torch.

Owns the job file, the reading back of answers, and the settings of sampling. Invariant: for one model, one set of
prompts and one seed, the answers are the same on the same machine; a prompt has all its answers or none.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from workbench.canonical_rows import PromptRow
from workbench.child_programs import Told, run_program
from workbench.errors import WorkbenchError
from workbench.model_names import ResolvedModel

_OF_JOBS = re.compile(r"job (\d+) of \d+: ")
"""How engine.generate says which of several jobs it is at."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    samples: int = 1
    """Answers to each prompt."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Nucleus; 1 is off."""
    max_new_tokens: int = 256
    seed: int = 1
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads; 0 is all."""
    batch_size: int = 0
    """Prompts at once; 0 is as many as memory allows."""

    def recorded(self) -> dict[str, Any]:
        """What a pair set or dataset keeps of it: all that shapes the answers."""
        return {name: value for name, value in asdict(self).items() if name not in ("threads", "device", "batch_size")}


@dataclass(frozen=True)
class GenerationJob:
    """One model, the prompts it is asked, and how."""

    model: ResolvedModel
    prompts: Sequence[PromptRow]
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Answer:
    """One answer of a model."""

    prompt_id: str
    sample: int
    """0-based number among the answers to this prompt."""
    completion: str
    stopped: bool
    """It ended by itself; False where it was cut off at max_new_tokens."""
    tokens: int
    logprob: float
    """Of the whole answer under the model that gave it, in nats."""


def generate(
    jobs: Sequence[GenerationJob],
    *,
    quiet: bool = False,
    progress: Told | None = None,
    finished: Callable[[int, list[Answer]], None] | None = None,
) -> list[list[Answer]]:
    """The answers of each job, in the order of its prompts. All jobs run in one child, one after the other.

    `progress` is told how many of all jobs' answers are there, and the model that is asked; it may raise to end the
    child. `finished` is given the number and the answers of each job once it is done, however the rest of them ends. A
    prompt that leaves no room in the model's window has no answers; without `finished`, a job without any answer is a
    WorkbenchError.
    """
    over_all = None if progress is None else _over_all(jobs, progress)
    with tempfile.TemporaryDirectory(prefix="workbench-generate-") as scratch:
        described = [_describe(job, Path(scratch), number) for number, job in enumerate(jobs)]
        job_file = Path(scratch) / "job.json"
        job_file.write_bytes(orjson.dumps({"jobs": described}))
        outs = [Path(one["out"]) for one in described]
        ready = _Ready(jobs, outs, finished)
        try:
            told = ready.before(over_all) if finished else over_all
            run_program("engine.generate", [str(job_file)], what="answering", quiet=quiet, progress=told)
        finally:
            ready.look()
        return [_read(job, out, required=finished is None) for job, out in zip(jobs, outs, strict=True)]


class _Ready:
    """Which jobs are done: each writes its file at once, when it has all answers."""

    def __init__(
        self, jobs: Sequence[GenerationJob], outs: Sequence[Path], finished: Callable[[int, list[Answer]], None] | None
    ) -> None:
        self._jobs, self._outs, self._finished = jobs, outs, finished
        self._next = 0

    def look(self) -> None:
        """Hand on what is done and was not."""
        while self._finished and self._next < len(self._outs) and self._outs[self._next].exists():
            number, self._next = self._next, self._next + 1
            self._finished(number, _read(self._jobs[number], self._outs[number], required=False))

    def before(self, tell: Told | None) -> Told:
        """`tell`, and a look before it."""

        def look_and_tell(done: float, total: float, words: str) -> None:
            self.look()
            if tell is not None:
                tell(done, total, words)

        return look_and_tell


def _over_all(jobs: Sequence[GenerationJob], progress: Told) -> Told:
    """The child's progress, which is of one job, as progress over all of them."""
    sizes = [len(job.prompts) * job.sampling.samples for job in jobs]

    def tell(done: float, total: float, words: str) -> None:
        found = _OF_JOBS.match(words)
        at = min(int(found[1]), len(jobs)) - 1 if found else 0
        # A prompt without room is not in the job's total, but was counted here.
        left_out = sizes[at] - total if total else 0
        progress(sum(sizes[:at]) + left_out + done, sum(sizes), jobs[at].model.source if total else "")

    return tell


def _describe(job: GenerationJob, scratch: Path, number: int) -> dict[str, Any]:
    prompts = scratch / f"prompts-{number}.jsonl"
    prompts.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in job.prompts))
    settings = asdict(job.sampling)
    if settings["device"] == "auto":
        del settings["device"]
    return {
        "model": job.model.for_job(),
        "prompts": str(prompts),
        "out": str(scratch / f"answers-{number}.jsonl"),
        **settings,
    }


def _read(job: GenerationJob, out: Path, *, required: bool = True) -> list[Answer]:
    answers: dict[tuple[str, int], Answer] = {}
    with open(out, "rb") as lines:
        for line in lines:
            row = orjson.loads(line)
            answer = Answer(row["id"], row["sample"], row["completion"], row["stopped"], row["tokens"], row["logprob"])
            answers[answer.prompt_id, answer.sample] = answer
    asked = [row["id"] for row in job.prompts]
    whole = [one for one in asked if all((one, sample) in answers for sample in range(job.sampling.samples))]
    if not whole and required:
        raise WorkbenchError(
            f"{job.model.source}: none of {len(asked)} prompts was answered: they leave no room for "
            f"{job.sampling.max_new_tokens} tokens in the model's window; lower --max-new-tokens"
        )
    return [answers[one, sample] for one in whole for sample in range(job.sampling.samples)]
