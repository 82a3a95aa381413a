"""The reference's log-probs of pairs: each is worked out once, before the first step, and shared by runs.

    blobs/KEY.safetensors                     of one set of pairs under one reference; NaN where nobody has asked yet
    data/reference_log_probs.safetensors      what this run takes of it

Owns the key: the tokens of the whole set, the weights of the reference, the numbers they are held and worked in, and
the code. Nothing else is in it, so runs that differ in beta, length, order or loss share. Invariants: a file holds the
hash of its content and is used only where it agrees; a value that is there is never worked out again; a run keeps the
values that it began with, so that it goes on with the same bits whatever becomes of blobs/. Pairs that no run takes
are not measured. In bf16, and in the last bits of fp32, a value depends on the pairs beside it in its pass.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from engine.data.example_store import Origin, StoredExamples, taken_from
from engine.data.examples import PreferenceExample
from engine.data.labelled_examples import MismatchedPairs
from engine.methods.preference import pair_log_probs
from engine.model.adapters import REFERENCE, RoleModel
from engine.model.fingerprint import file_sha256, folder_sha256
from engine.model_parts import precision_of
from engine.ranks import leaders_word, leads, sum_over_ranks, world_size
from engine.reporting import Reporter
from engine.run.blobs import blobs_folder, blobs_used_by, note_blobs
from engine.run.config import RunConfig
from engine.run.durable_files import disk_faults_named, write_atomically
from engine.run.folder import RunFolder
from engine.run.locks import hold

REFERENCE_CACHE = "reference_log_probs.safetensors"
PORTION = 256
"""Pairs that are measured before one may stop to write; a fixed number, so that they lie in the same passes always."""
WRITE_EVERY_S = 10.0
"""Of a long pass a kill loses so much, and the portion that was begun."""
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_POLL_S = 0.2

Measure = Callable[[Sequence[PreferenceExample]], torch.Tensor]
"""Summed log-probs of (chosen, rejected) of each pair under the reference, (P, 2)."""


@dataclass(frozen=True)
class _Part:
    """The pairs of one side that a run takes."""

    pairs: Sequence[PreferenceExample]
    """Those that are taken, and no others."""
    places: list[int]
    """Of each in the whole set."""
    count: int
    """Pairs of the whole set."""
    blob: str
    """Name of the file in blobs/; empty where no pair is taken."""


class _Progress:
    """How many pairs are known, told as they come."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self._reporter, self._total = reporter, total
        self.known = 0

    def add(self, pairs: int) -> None:
        """Of a pass of this process; the others take as many."""
        self.reach(self.known + pairs * world_size())

    def reach(self, known: int) -> None:
        """Exactly, where it is known."""
        self.known = min(known, self._total)
        self._reporter.measuring(self.known, self._total)


def reference_log_probs(
    config: RunConfig,
    folder: RunFolder,
    reporter: Reporter,
    roles: RoleModel,
    parts: tuple[Sequence[PreferenceExample], Sequence[int], Sequence[PreferenceExample]],
    device: torch.device,
    check: Callable[[], None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed log-probs of both answers under the reference, in fp32, known or worked out once and kept.

    `parts` are the training pairs, which of them the run takes, and the held-out pairs; a pair that is not taken has
    NaN. Called before a checkpoint is loaded, so with full fine-tuning the untrained weights are the reference.
    """
    pairs, taken, held_out = parts
    reference = leaders_word(_identity(config, folder, device) if leads() else None)
    sides = {"train": _part(pairs, taken, reference), "eval": _part(held_out, range(len(held_out)), reference)}
    own = folder.data / REFERENCE_CACHE
    key = hashlib.sha256(repr([(part.blob, part.places) for part in sides.values()]).encode()).hexdigest()
    found = _leaders(_read(own, key, sum(len(part.places) for part in sides.values())) if leads() else None)
    if found is None:
        if leads():
            noted = {f"reference_{side}": part.blob for side, part in sides.items() if part.blob}
            note_blobs(folder, {**blobs_used_by(folder), **noted})

        progress = _Progress(reporter, sum(len(part.places) for part in sides.values()))

        def measure(examples: Sequence[PreferenceExample]) -> torch.Tensor:
            budget = config.train.tokens_per_micro_batch
            return pair_log_probs(
                roles, REFERENCE, examples, budget=budget, device=device, check=check, measured=progress.add
            ).cpu()

        shared = [_shared(part, blobs_folder(folder), measure, check, progress) for part in sides.values()]
        found = torch.cat([values for values, _ in shared])
        if leads():
            _write(own, key, found)
        measured = sum(count for _, count in shared)
        reporter.event("reference_cached", pairs=measured, shared=len(found) - measured)
    train_P2 = torch.full((len(pairs), 2), torch.nan)
    train_P2[list(taken)] = found[: len(taken)]
    return train_P2, found[len(taken) :]


def _identity(config: RunConfig, folder: RunFolder, device: torch.device) -> str:
    """Hash of what makes the reference's numbers what they are, but for the pairs."""
    adapter = folder.in_workspace(config.model.adapter) if config.model.adapter else None
    held = {"qlora": "4-bit", "full": str(torch.float32)}.get(config.adapter.kind, str(precision_of(config, device)))
    decided_by = {
        "base": folder_sha256(folder.in_workspace(config.model.path)),
        "adapter": [file_sha256(adapter / name) for name in _ADAPTER_FILES] if adapter else None,
        "weights": held,
        "work": str(precision_of(config, device)),
        "device": device.type,
        "code": _code_sha256(),
    }
    return hashlib.sha256(orjson.dumps(decided_by, option=orjson.OPT_SORT_KEYS)).hexdigest()


@cache
def _code_sha256() -> str:
    """Of the modules and libraries that a log-prob comes from: a change to them measures anew."""
    digest = hashlib.sha256(" ".join(version(name) for name in ("torch", "transformers", "peft")).encode())
    here = Path(__file__).parent
    others = ("data/labelled_examples.py", "data/packing.py", "methods/preference.py", "methods/reward.py")
    for module in [*sorted((here / "model").glob("*.py")), *(here / name for name in others)]:
        digest.update(module.read_bytes())
    return digest.hexdigest()


def _part(pairs: Sequence[PreferenceExample], taken: Sequence[int], reference: str) -> _Part:
    if not len(taken):
        return _Part([], [], 0, "")
    origin = _origin(pairs)
    key = hashlib.sha256(f"{origin.sha256} {reference}".encode()).hexdigest()
    return _Part(taken_from(pairs, taken), [origin.places[i] for i in taken], origin.count, f"{key}.safetensors")


def _origin(pairs: Sequence[PreferenceExample]) -> Origin:
    if isinstance(pairs, MismatchedPairs):
        return pairs.origin()
    assert isinstance(pairs, StoredExamples), "pairs that lie in no store cannot be told from others"
    return pairs.origin("prompt", "chosen", "rejected")


def _shared(
    part: _Part, blobs: Path, measure: Measure, check: Callable[[], None], progress: _Progress
) -> tuple[torch.Tensor, int]:
    """(log-probs of the part's pairs, how many of them were worked out now)."""
    if not part.blob:
        return torch.empty(0, 2), 0
    file = blobs / part.blob
    with _alone(file, check):
        known_P2 = _leaders(_read(file, part.blob, part.count) if leads() else None)
        if known_P2 is None:
            known_P2 = torch.full((part.count, 2), torch.nan)
        missing = [i for i, unknown in enumerate(known_P2[part.places].isnan().any(1).tolist()) if unknown]
        known, written_at = progress.known + len(part.places) - len(missing), time.monotonic()
        for start in range(0, len(missing), PORTION):
            progress.reach(known + start)
            portion = missing[start : start + PORTION]
            known_P2[[part.places[i] for i in portion]] = measure(taken_from(part.pairs, portion))
            at_end = start + PORTION >= len(missing)
            if leads() and (at_end or time.monotonic() - written_at >= WRITE_EVERY_S):
                _write(file, part.blob, known_P2)
                written_at = time.monotonic()
        progress.reach(known + len(missing))
    return known_P2[part.places], len(missing)


@contextmanager
def _alone(file: Path, check: Callable[[], None]) -> Iterator[None]:
    """Hold the right to fill a file, in the leading process for all; waits while another run has it.

    The lock's file stays: were it removed, one process could hold the old file and another a new one.
    """
    lock = None
    while True:
        if leads():
            with disk_faults_named("keeping log-probs of the reference", file):
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = hold(file.with_name(f".{file.name}.lock"))
        if leaders_word(lock is not None):
            break
        check()
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _leaders(values_P2: torch.Tensor | None) -> torch.Tensor | None:
    """What the leading process has read, in all of them: files are read in one place, so that none sees another."""
    rows = leaders_word(None if values_P2 is None else len(values_P2))
    if rows is None:
        return None
    return sum_over_ranks(torch.zeros(rows, 2) if values_P2 is None else values_P2)


def _read(file: Path, key: str, count: int) -> torch.Tensor | None:
    """The log-probs in a file, (count, 2); None where it is missing, torn, altered or of something else."""
    try:
        content = file.read_bytes()
        described = orjson.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        values_P2 = load(content)["log_probs"]
    except (OSError, SafetensorError, orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if described != {"key": key, "sha256": _sha256(values_P2)} or values_P2.shape != (count, 2):
        return None
    return values_P2


def _write(file: Path, key: str, values_P2: torch.Tensor) -> None:
    """Not synced: after a power cut the hash tells whether it is whole, and pairs can be measured again."""
    content = save({"log_probs": values_P2.contiguous()}, metadata={"key": key, "sha256": _sha256(values_P2)})
    with disk_faults_named("keeping log-probs of the reference", file):
        write_atomically(file, content, durable=False)


def _sha256(values_P2: torch.Tensor) -> str:
    return hashlib.sha256(values_P2.contiguous().numpy().tobytes()).hexdigest()
