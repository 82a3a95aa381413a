"""Answers of models to prompts: `python -m engine.generate JOB.json`.

JOB.json holds one job or {"jobs": […]}. A job names a model {"path", "adapter"}, a file of prompt rows and an `out`
file; the rest of its keys are the fields of `Job`. Each job's `out` file is written at once when all its answers are
there: one JSON line an answer, in the order of the prompts. Progress is JSON lines {"done", "total", "what"} on stdout;
an error is one line on stderr and exit code 1.

A job's answers are a pure function of the model, the prompts and the seed: answer j to a prompt draws with a seed made
of (seed, prompt id, j). A prompt that leaves no room in the model's window for max_new_tokens has no answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from engine.data.chat import ChatTokenizer
from engine.data.examples import PromptExample, read_prompts
from engine.errors import ConfigError, EngineError, ModelError
from engine.run.durable_files import disk_faults_named, write_atomically
from engine.run.safe_text import safe

DEVICES = ("", "auto", "cpu", "cuda")


@dataclass(frozen=True)
class Job:
    """One model, the prompts it is asked, and how."""

    model: Mapping[str, Any]
    """{"path": model folder, "adapter": peft adapter folder or empty}."""
    prompts: str
    """File of rows with a prompt."""
    out: str
    """File to be written."""
    samples: int = 1
    """Answers to each prompt."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 1
    device: str = "auto"
    """auto is cuda where there is one. Weights are fp32 on a CPU and bf16 on CUDA."""
    threads: int = 0
    """CPU threads; 0 leaves torch's own number."""
    batch_size: int = 0
    """Rows at once; 0 is as many as memory allows."""

    @classmethod
    def read(cls, described: Any) -> Job:
        """Raises ConfigError naming the key that is missing, unknown or of another kind."""
        if not isinstance(described, dict):
            raise ConfigError(f"generation job: a {type(described).__name__}: expected an object of named settings")
        known = {f.name: f for f in fields(cls)}
        unknown = [key for key in described if key not in known]
        missing = [key for key in ("model", "prompts", "out") if key not in described]
        if unknown or missing:
            what = f"{unknown[0]!r} is not a setting" if unknown else f"{missing[0]!r} is missing"
            raise ConfigError(f"generation job: {what}: the settings are {', '.join(known)}")
        job = cls(**described)
        job._check()
        return job

    def _check(self) -> None:
        if not isinstance(self.model, dict) or not isinstance(self.model.get("path"), str):
            raise ConfigError('generation job: model: expected {"path": FOLDER, "adapter": FOLDER or ""}')
        limits: list[tuple[str, type | tuple[type, ...], float, float]] = [
            ("samples", int, 1, 10**6),
            ("temperature", (int, float), 0, 100),
            ("top_p", (int, float), 1e-9, 1),
            ("max_new_tokens", int, 1, 10**7),
            ("seed", int, -(2**63), 2**63 - 1),
            ("threads", int, 0, 4096),
            ("batch_size", int, 0, 10**6),
        ]
        for name, kind, least, most in limits:
            value: Any = getattr(self, name)
            is_number = isinstance(value, kind) and not isinstance(value, bool)
            if not is_number or not least <= value <= most:
                raise ConfigError(f"generation job: {name} = {value!r}: expected a number from {least:g} to {most:g}")
        if self.device not in DEVICES:
            raise ConfigError(f"generation job: device = {self.device!r}: expected auto, cpu or cuda")

    @property
    def weights(self) -> tuple[str, str]:
        """(model folder, adapter folder or empty): jobs that share these share a loaded model."""
        return str(self.model["path"]), str(self.model.get("adapter") or "")


@dataclass
class _Loaded:
    """The model that the last job used."""

    weights: tuple[str, str] = ("", "")
    device: str = ""
    model: Any = None
    tokenizers: dict[tuple[str, str], ChatTokenizer] = field(default_factory=dict)

    def use(self, job: Job, device: Any) -> tuple[Any, ChatTokenizer]:
        """Model and tokenizer of a job, loaded unless the job before had the same."""
        import torch

        from engine.model.loading import load_for_inference

        path, adapter = job.weights
        if job.weights not in self.tokenizers:
            self.tokenizers[job.weights] = ChatTokenizer.of_model(path, adapter)
        if self.weights != job.weights or self.device != str(device):
            # Freed first, so that two models never have to fit at once.
            self.model, self.weights = None, ("", "")
            dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
            self.model = load_for_inference(Path(path), Path(adapter) if adapter else None, dtype=dtype, device=device)
            self.weights, self.device = job.weights, str(device)
        return self.model, self.tokenizers[job.weights]


def main(argv: list[str] | None = None) -> int:
    """Run the jobs of a file. Exit code 1 with one line on stderr where one cannot be done, 2 for wrong use."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -m engine.generate JOB.json", file=sys.stderr)
        return 2
    try:
        jobs = read_jobs(Path(arguments[0]))
        loaded = _Loaded()
        for number, job in enumerate(jobs, start=1):
            generate(job, loaded, of_jobs=f"job {number} of {len(jobs)}: " if len(jobs) > 1 else "")
    except EngineError as error:
        print(safe(str(error)), file=sys.stderr)
        return 1
    return 0


def read_jobs(file: Path) -> list[Job]:
    """The jobs of a job file, all checked before the first is run. Raises ConfigError."""
    try:
        described = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"{file}: no readable job file ({error})") from error
    several = described.get("jobs", [described]) if isinstance(described, dict) else [described]
    if not isinstance(several, list):
        raise ConfigError(f'{file}: "jobs" is a {type(several).__name__}: expected a list of jobs')
    return [Job.read(one) for one in several]


def generate(job: Job, loaded: _Loaded | None = None, of_jobs: str = "") -> None:
    """Do one job and write its `out` file. Raises EngineError."""
    import torch

    if job.threads:
        torch.set_num_threads(job.threads)
    model, tokenizer = (loaded or _Loaded()).use(job, _device(job.device))
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31
    prompts, counts = read_prompts(Path(job.prompts), tokenizer, max(1, window - job.max_new_tokens + 1))
    total = len(prompts) * job.samples
    what = f"{of_jobs}answers of {Path(job.weights[1] or job.weights[0]).name}"
    if counts.dropped:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.dropped.most_common())
        _tell(0, total, f"{of_jobs}{counts.dropped.total()} prompts have no answers ({reasons})")
    rows = _answers(job, model, tokenizer, prompts, lambda done: _tell(done, total, what))
    out = Path(job.out)
    with disk_faults_named("writing the answers", out):
        write_atomically(out, b"".join(orjson.dumps(row) + b"\n" for row in rows))


def _answers(
    job: Job, model: Any, tokenizer: ChatTokenizer, prompts: Sequence[PromptExample], on_batch: Callable[[int], None]
) -> list[dict[str, Any]]:
    import torch

    from engine.methods.method import seed_of
    from engine.model.sampler import sample

    asked = [(prompt, j) for prompt in prompts for j in range(job.samples)]
    try:
        completions = sample(
            model,
            [prompt.prompt for prompt, _ in asked],
            max_new_tokens=job.max_new_tokens,
            temperature=job.temperature,
            top_p=job.top_p,
            stop_ids=tokenizer.stop_ids,
            seeds=[seed_of(job.seed, prompt.id, j) for prompt, j in asked],
            pad_id=tokenizer.pad_id,
            batch_size=job.batch_size or None,
            on_batch=on_batch,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(f"out of memory while sampling: lower batch_size or max_new_tokens ({error})") from error
    return [
        {
            "id": prompt.id,
            "prompt": prompt.text,
            "sample": j,
            "completion": tokenizer.decode(completion.ids),
            "stopped": completion.stopped,
            "tokens": len(completion.ids),
            "logprob": sum(completion.log_probs),
        }
        for (prompt, j), completion in zip(asked, completions, strict=True)
    ]


def _device(name: str) -> Any:
    import torch

    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        raise ConfigError(
            'device = "cuda": torch finds no CUDA device it can use. `workbench doctor` says why; use --device cpu '
            "to go on without"
        )
    return torch.device("cuda" if usable and name != "cpu" else "cpu")


def _tell(done: int, total: int, what: str) -> None:
    print(json.dumps({"done": done, "total": total, "what": what}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
