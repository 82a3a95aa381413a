"""Who is looking at which pair: claims that die with their holder, so that no pair is shown beyond its overlap.

Owns pairs/NAME/claims/: one small file for each sitting, on which it holds a flock and in which stands the pair that it
shows, and the file `turn`, whose flock is held for the moment in which somebody chooses. Invariants: a claim whose lock
is free belongs to nobody (its holder died, however it went) and is swept by the next who chooses; at every moment a
pair is judged by, or shown to, at most `overlap` people together. A person who looks at a pair twice counts once.

One file for a sitting, not one for each slot of each pair: choosing costs a look at as many files as there are people,
makes no file that could meet a full disk, and 100,000 pairs leave nothing behind. Where flock does not exclude (NFS),
the folder lies on this host, and `this_host_only` says so: other hosts do not see these claims.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RunFolderError
from engine.run.locks import excludes, host_lock_path
from workbench.errors import WorkbenchError, explain_os_errors
from workbench.others_verdicts import CountsFor, OthersVerdicts, first_showing

TURN = "turn"
PATIENCE_S = 10.0
"""How long the moment of another program's choosing may last before it is an error."""
_PAUSE_S = 0.0005
_WIDTH = 64
"""Bytes of a claim: the pair's id, padded, so that a claim is overwritten in its place and never grows."""


@dataclass(frozen=True)
class Claim:
    """One sitting that lives now."""

    annotator: str
    pair: str
    """What it shows; empty between pairs."""
    since: float
    """When that pair was claimed, in seconds since 1970, for showing only."""


class Claims:
    """One annotator's claim on a pair set. Where `overlap` is 0, everyone judges everything and any pair may be had."""

    def __init__(
        self, pair_set_folder: Path, annotator: str, overlap: int, counts_for: CountsFor = first_showing
    ) -> None:
        """`counts_for` says by which key a line of a journal fills what is claimed by that key."""
        self.annotator, self.overlap = annotator, overlap
        self.others = OthersVerdicts(pair_set_folder / "judgments", annotator, overlap, counts_for)
        with explain_os_errors("claiming pairs", pair_set_folder):
            self._folder, self.this_host_only = _folder_of(pair_set_folder, probe=overlap > 0)
            self._name = f"{annotator}.{secrets.token_hex(4)}"
            with self._turn():
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self._folder / self._name, flags, 0o600)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._say("")
                self.is_elsewhere = any(claim.annotator == annotator for claim in self._living())
        """Whether the same name was at work in another program when this one came."""

    def choose(self, candidates: Iterable[str]) -> str:
        """Let go of what was claimed, and claim the first candidate that may be shown; empty where none may."""
        if not self.overlap:
            return next(iter(candidates), "")
        with explain_os_errors("claiming a pair", self._folder), self._turn():
            shown = self._shown()
            # After the claims: who has let go of a pair has judged it before, and that line is read now.
            self.others.look()
            chosen = next((pair for pair in candidates if self._may_show(pair, shown)), "")
            self._say(chosen)
        return chosen

    def leave(self) -> None:
        """Show none of the set's pairs for now."""
        if self.overlap:
            with explain_os_errors("letting a pair go", self._folder):
                self._say("")

    def close(self) -> None:
        """Let go for good. Never fails: where the folder is gone or full, the claim dies with its lock."""
        if self._descriptor >= 0:
            with suppress(OSError, WorkbenchError), self._turn():
                (self._folder / self._name).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def full(self) -> Set[str]:
        """Pairs that others have judged as often as they may be judged, as far as this was looked at."""
        return self.others.full

    def is_full(self, pair: str) -> bool:
        """Whether others have judged the pair as often as it may be judged, as far as this was looked at."""
        return pair in self.others.full

    def _may_show(self, pair: str, shown: dict[str, set[str]]) -> bool:
        looking = shown.get(pair, set())
        return self.annotator not in looking and len(self.others.judged_by(pair) | looking) < self.overlap

    def _shown(self) -> dict[str, set[str]]:
        """Pair → who is looking at it now, in another program."""
        shown: dict[str, set[str]] = {}
        for claim in self._living():
            shown.setdefault(claim.pair, set()).add(claim.annotator)
        return shown

    def _living(self) -> list[Claim]:
        """The claims of other programs; those of the dead are swept. Only in this program's turn."""
        return [claim for name in os.listdir(self._folder) if name != self._name for claim in _read(self._folder, name)]

    def _say(self, pair: str) -> None:
        data = pair.encode().ljust(_WIDTH)[: _WIDTH - 1] + b"\n"
        if os.pwrite(self._descriptor, data, 0) != _WIDTH:
            raise OSError(28, os.strerror(28), str(self._folder / self._name))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        descriptor = os.open(self._folder / TURN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _wait_for(descriptor, self._folder / TURN)
            yield
        finally:
            os.close(descriptor)


def prepare_claims(pair_set_folder: Path) -> None:
    """Find out once how locks work here, which asks another process: for a program that may start none later."""
    with suppress(OSError, RunFolderError):
        _folder_of(pair_set_folder, probe=True)


def living_claims(pair_set_folder: Path) -> list[Claim]:
    """Who is labeling a pair set now, on this host. Sweeps nothing and keeps nobody waiting."""
    try:
        folder = pair_set_folder / "claims"
        names = os.listdir(folder)
        if not names:
            folder, _ = _folder_of(pair_set_folder, probe=True)
            names = os.listdir(folder)
    except (OSError, RunFolderError):
        return []
    return [claim for name in names for claim in _read(folder, name, sweep=False)]


def _read(folder: Path, name: str, *, sweep: bool = True) -> list[Claim]:
    """The claim of one file, if its holder lives. With `sweep` the file of a dead one is removed."""
    if name == TURN:
        return []
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if sweep else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        pair = os.pread(descriptor, _WIDTH, 0).decode(errors="replace").strip()
        return [Claim(name.rpartition(".")[0], pair, os.fstat(descriptor).st_mtime)]
    else:
        if sweep:
            path.unlink(missing_ok=True)
        return []
    finally:
        os.close(descriptor)


def _folder_of(pair_set_folder: Path, *, probe: bool) -> tuple[Path, bool]:
    """(where the claims lie, whether that is on this host only). Without `probe` flock is believed to exclude."""
    folder = pair_set_folder / "claims"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not probe or excludes(folder):
        return folder, False
    elsewhere = host_lock_path(folder).with_suffix(".claims")
    elsewhere.mkdir(mode=0o700, exist_ok=True)
    return elsewhere, True


def _wait_for(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise WorkbenchError(
                    f"{path}: another program has been choosing its next pair for {PATIENCE_S:.0f} s; it may be "
                    "stopped. Let it go on or end it, and try again."
                ) from error
            time.sleep(_PAUSE_S)
        else:
            return
