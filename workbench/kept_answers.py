"""The answers of models that are kept, so that none is asked for twice: not after a kill, not for another comparison.

Owns blobs/answers-KEY.json, all answers of a model to some prompts, and blobs/answers-KEY.part, those that are there
before it has given all, one JSON line each. KEY is made of the model's hash (its name, where it has none), the prompts
and the sampling. The files may be deleted at any time; a damaged one, or a line of one that is torn, counts as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from engine.run.durable_files import write_atomically
from workbench.canonical_rows import PromptRow
from workbench.errors import explain_os_errors
from workbench.generation import Answer, Sampling
from workbench.url_model import AnsweringModel
from workbench.workspace import Workspace

SCHEMA = 1
FILES_KEPT = 200
"""Files of answers; the oldest go first."""


def kept_answers(
    workspace: Workspace, model: AnsweringModel, prompts: Sequence[PromptRow], sampling: Sampling
) -> list[Answer]:
    """What a model answered to all of these prompts before; empty where it did not, or the file is damaged."""
    try:
        content = orjson.loads(_path(workspace, model, prompts, sampling).read_bytes())
        found = [_answer(one) for one in content["answers"]]
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return []
    known = {prompt["id"] for prompt in prompts}
    return found if all(answer.prompt_id in known for answer in found) else []


def keep_answers(
    workspace: Workspace,
    model: AnsweringModel,
    prompts: Sequence[PromptRow],
    sampling: Sampling,
    answers: Sequence[Answer],
) -> None:
    """Keep all answers of a model to these prompts; in a read-only workspace nothing is kept."""
    if workspace.read_only_reason:
        return
    path = _path(workspace, model, prompts, sampling)
    content = {
        "schema": SCHEMA,
        "model": model.source,
        "sampling": sampling.recorded(),
        "answers": [_line(one) for one in answers],
    }
    with explain_os_errors("keeping answers", path):
        workspace.blobs.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, orjson.dumps(content))
        path.with_suffix(".part").unlink(missing_ok=True)
        _drop_oldest(workspace.blobs)


class AnswersSoFar:
    """The answers that a model has given while it is asked; without a workspace, in memory alone."""

    def __init__(
        self, workspace: Workspace | None, model: AnsweringModel, prompts: Sequence[PromptRow], sampling: Sampling
    ) -> None:
        self._prompts, self._samples = prompts, sampling.samples
        self._path: Path | None = None
        self._answers: dict[tuple[str, int], Answer] = {}
        if workspace is not None and not workspace.read_only_reason:
            workspace.blobs.mkdir(mode=0o700, exist_ok=True)
            self._path = _path(workspace, model, prompts, sampling).with_suffix(".part")
            self._read(self._path)

    def __len__(self) -> int:
        return len(self._answers)

    def has(self, prompt: str, sample: int) -> bool:
        """Whether this answer is there."""
        return (prompt, sample) in self._answers

    def is_whole(self, prompt: str) -> bool:
        """Whether all answers to a prompt are there."""
        return all(self.has(prompt, sample) for sample in range(self._samples))

    def add(self, answers: Iterable[Answer]) -> None:
        """Keep these: they are in the file when this returns."""
        found = list(answers)
        if self._path is not None and found:
            with explain_os_errors("keeping answers", self._path):
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                with os.fdopen(os.open(self._path, flags, 0o600), "wb") as file:
                    file.write(b"".join(b"\n" + orjson.dumps(_line(one)) for one in found))
        for one in found:
            self._answers[one.prompt_id, one.sample] = one

    def in_order(self) -> list[Answer]:
        """The answers of the prompts that have all of theirs, in the order of prompts and samples."""
        whole = [row["id"] for row in self._prompts if self.is_whole(row["id"])]
        return [self._answers[one, sample] for one in whole for sample in range(self._samples)]

    def _read(self, path: Path) -> None:
        known = {row["id"] for row in self._prompts}
        with contextlib.suppress(OSError):
            for line in path.read_bytes().split(b"\n"):
                with contextlib.suppress(ValueError, TypeError, KeyError, IndexError):
                    one = _answer(orjson.loads(line))
                    if one.prompt_id in known and 0 <= one.sample < self._samples:
                        self._answers[one.prompt_id, one.sample] = one


def _path(workspace: Workspace, model: AnsweringModel, prompts: Sequence[PromptRow], sampling: Sampling) -> Path:
    # The model's name is no part of it where there is a hash: the same weights give the same answers.
    key: list[Any] = [SCHEMA, model.sha256 or model.source, prompts, sampling.recorded()]
    name = hashlib.sha256(orjson.dumps(key, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return workspace.blobs / f"answers-{name}.json"


def _line(one: Answer) -> list[Any]:
    return [one.prompt_id, one.sample, one.completion, one.stopped, one.tokens, one.logprob]


def _answer(line: Any) -> Answer:
    """Raises IndexError, TypeError or ValueError for what is no answer."""
    logprob = math.nan if line[5] is None else float(line[5])
    return Answer(str(line[0]), int(line[1]), str(line[2]), bool(line[3]), int(line[4]), logprob)


def _drop_oldest(folder: Path) -> None:
    files = [*folder.glob("answers-*.json"), *folder.glob("answers-*.part")]
    if len(files) > FILES_KEPT:
        with contextlib.suppress(FileNotFoundError):  # another process tidied it
            for file in sorted(files, key=lambda file: file.stat().st_mtime)[: len(files) - FILES_KEPT]:
                file.unlink()
