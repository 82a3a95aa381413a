"""Completions that a person has flagged while they looked at a run: each waits beside another answer to its prompt.

Owns flagged.jsonl in the run's folder, one line appended for each flag and each flag taken back, and the pair set that
is made of them. Invariants: a flag is on the disk before it is shown; the engine neither reads nor writes this file; a
pair has two different answers to one prompt, and says from which run and steps they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from engine.run.durable_files import append_line, encode_line, open_for_append, read_jsonl
from workbench.errors import UsageError, explain_os_errors
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.run_list import Run
from workbench.run_samples import Sample

FILE = "flagged.jsonl"


@dataclass(frozen=True)
class Flag:
    """A completion, and the one that it is to be judged beside."""

    step: int
    source: str
    prompt: str
    completion: str
    other_step: int
    other: str


def flag_of(place: tuple[int, str], sample: Sample, other_place: tuple[int, str], other: Sample | None) -> Flag:
    """The flag of a completion beside another. Raises UsageError where they make no pair."""
    if other is None:
        raise UsageError(
            f"step {other_place[0]:,} has no answer to this prompt to be judged beside it. Go to a step that has one, "
            "press b there, and flag this one again."
        )
    if sample.completion == other.completion:
        raise UsageError(
            f"the answer of step {other_place[0]:,} is the same: nobody could prefer one. Press b at another step."
        )
    return Flag(*place, sample.prompt, sample.completion, other_place[0], other.completion)


def flags_of(run: Run) -> tuple[Flag, ...]:
    """The flags that stand, in the order in which they were set; a torn line is left out."""
    found: dict[Flag, None] = {}
    try:
        lines = [line for _, line in read_jsonl(run.folder.path / FILE)]
    except OSError:
        return ()
    for line in lines:
        try:
            flag = Flag(**{key: line[key] for key in Flag.__dataclass_fields__})
            kept = bool(line["flagged"])
        except (KeyError, TypeError):
            continue
        found.pop(flag, None)
        if kept:
            found[flag] = None
    return tuple(found)


def set_flag(run: Run, flag: Flag, *, flagged: bool) -> None:
    """Write a flag, or that it is taken back. Raises WorkbenchError where that cannot be written."""
    run.workspace.require_writable()
    path = run.folder.path / FILE
    with explain_os_errors("keeping the flag", path):
        descriptor = open_for_append(path)
        try:
            append_line(descriptor, encode_line({"schema": 1, "flagged": flagged, **asdict(flag)}))
        finally:
            os.close(descriptor)


def pairs_of_flags(run: Run, name: str) -> PairSet:
    """A pair set of all flagged completions, each beside its other. Raises WorkbenchError where it cannot be made."""
    flags = flags_of(run)
    if not flags:
        raise UsageError(f"nothing of {run.id} is flagged. F flags the answer that is shown.")

    def rows() -> Iterator[CandidatePair]:
        for flag in flags:
            yield CandidatePair(
                flag.prompt, flag.completion, flag.other, f"run:{run.id}@{flag.step}", f"run:{run.id}@{flag.other_step}"
            )

    return create_pairs(run.workspace, name, rows(), {"kind": "flagged", "run": run.id, "flags": len(flags)})
