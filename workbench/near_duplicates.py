"""Texts that are nearly the same: MinHash sketches on the disk, candidates by locality-sensitive hashing.

A text's set is every run of SHINGLE_BYTES bytes of it, white space collapsed and case folded. Its sketch is PER_PART
hashes by one permutation (Li, Owen & Zhang 2012) with empty bins filled from others in a fixed order (Shrivastava 2017,
"Optimal densification"), 16 bits of each kept; the share of equal hashes estimates the Jaccard similarity of two sets
with a standard error of about sqrt(J(1-J)/128), 0.035 at 0.8. A text of fewer than SHORTEST_BYTES is compared as it is.

A row may have several parts (prompt and answer), each with a sketch of its own, and every one must be near: a long
common prompt makes no two answers alike. Rows are candidates where all BAND hashes of some of BANDS bands are equal.
Owns the sketches (256 bytes a part and row, in a file that goes with it) and what follows from them; in memory are a
batch of texts and, while candidates are looked for, 24 bytes a row. Refuses to know what a row is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHINGLE_BYTES = 8
PER_PART = 128
BANDS, BAND = 16, 8
THRESHOLD = 0.8
SHORTEST_BYTES = 64
PARAMETERS = {
    "shingle_bytes": SHINGLE_BYTES, "hashes": PER_PART, "bands": BANDS, "rows_a_band": BAND,
    "jaccard_at_least": THRESHOLD, "shortest_bytes": SHORTEST_BYTES,
}  # fmt: skip
_BATCH_BYTES = 1 << 19
_EMPTY = np.uint32(0xFFFFFFFF)
_COMPARED_AT_ONCE = 1 << 14


def normal(text: str) -> bytes:
    """A text as it is compared: case folded, white space collapsed."""
    return " ".join(text.split()).casefold().encode("utf-8", "surrogatepass")


def hash_of(content: bytes) -> int:
    """63 bits that tell texts apart: among ten million, two different ones meet with a chance of 5e-6."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


class Sketches:
    """Sketches of rows, appended one by one and then compared."""

    def __init__(self, path: Path, parts: int) -> None:
        """`path` is a new file, which `close` deletes."""
        self.rows = 0
        self._parts = parts
        self._path = path
        self._file = open(path, "xb")  # noqa: SIM115 (open until `close`)
        self._texts: list[bytes] = []
        self._bytes = 0
        self._order = _orders()

    def add(self, *texts: bytes) -> None:
        """One row: as many normalised texts as it has parts."""
        self._texts += texts
        self._bytes += sum(map(len, texts))
        self.rows += 1
        if self._bytes >= _BATCH_BYTES:
            self._flush()

    def near_pairs(self, allowed: Callable[[Any, Any], Any], check: Callable[[], None] = lambda: None) -> Any:
        """For rows that are near an earlier one: (row, the earlier one, estimated similarity of the part least alike).

        A numpy array of three columns, float64, sorted by row, one line a row. `allowed` gets two arrays of row
        numbers, earlier and later, and says which pairs may count. `check` is called between steps and may raise.
        """
        self._flush()
        self._file.flush()
        best: dict[int, tuple[int, float]] = {}
        if self.rows < 2:
            return np.empty((0, 3))
        sketches: Any = np.memmap(self._path, np.uint16, "r", shape=(self.rows, self._parts, PER_PART))
        for band in range(BANDS):
            check()
            for early, late in _candidates(_band_keys(sketches, band)):
                kept = allowed(early, late)
                early, late = early[kept], late[kept]
                for start in range(0, len(early), _COMPARED_AT_ONCE):
                    check()
                    part = slice(start, start + _COMPARED_AT_ONCE)
                    alike = (sketches[early[part]] == sketches[late[part]]).mean(axis=2).min(axis=1)
                    near = np.flatnonzero(alike >= THRESHOLD)
                    found = zip(
                        late[part][near].tolist(), early[part][near].tolist(), alike[near].tolist(), strict=True
                    )
                    for row, other, share in found:
                        if row not in best or share > best[row][1]:
                            best[row] = (other, share)
        del sketches
        return np.array([(row, *best[row]) for row in sorted(best)], dtype=np.float64).reshape(-1, 3)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._texts:
            self._file.write(sketch(self._texts, self._order).tobytes())
            self._texts, self._bytes = [], 0


def sketch(texts: Sequence[bytes], orders: Any = None) -> Any:
    """The sketches of normalised texts: uint16 of shape (texts, PER_PART)."""
    lowest: Any = np.full(len(texts) * PER_PART, _EMPTY, np.uint32)
    long = [place for place, text in enumerate(texts) if len(text) >= SHORTEST_BYTES]
    if long:
        lengths: Any = np.array([len(texts[place]) - SHINGLE_BYTES + 1 for place in long])
        joined = b"".join(texts[place] for place in long)
        every: Any = np.ndarray((len(joined) - SHINGLE_BYTES + 1,), "<u8", joined, strides=(1,))
        begins = np.cumsum(lengths + SHINGLE_BYTES - 1) - (lengths + SHINGLE_BYTES - 1)
        owner: Any = np.repeat(np.arange(len(long)), lengths)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        hashed = _mixed(every[begins[owner] + within])
        bins = np.array(long)[owner] * PER_PART + (hashed & np.uint64(PER_PART - 1)).astype(np.int64)
        np.minimum.at(lowest, bins, (hashed >> np.uint64(32)).astype(np.uint32))
    lowest = _densified(lowest.reshape(len(texts), PER_PART), _orders() if orders is None else orders)
    found: Any = (lowest & np.uint32(0xFFFF)).astype(np.uint16)
    for place, text in enumerate(texts):
        if len(text) < SHORTEST_BYTES:
            whole: Any = np.uint64(hash_of(text)) + np.arange(PER_PART, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            found[place] = (_mixed(whole) >> np.uint64(48)).astype(np.uint16)
    return found


def _mixed(values: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014): every bit of 64 depends on every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _orders() -> Any:
    """For each bin the order in which others lend it their hash when it is empty; the same for all texts and runs."""
    rng = np.random.default_rng(20170807)
    return np.stack([rng.permutation(PER_PART) for _ in range(PER_PART)])


def _densified(lowest: Any, orders: Any) -> Any:
    filled = lowest != _EMPTY
    with_any = filled.any(axis=1)
    found = lowest.copy()
    for attempt in range(PER_PART):
        rows, bins = np.nonzero((found == _EMPTY) & with_any[:, None])
        if not len(rows):
            break
        lenders = orders[bins, attempt]
        lending = filled[rows, lenders]
        found[rows[lending], bins[lending]] = lowest[rows[lending], lenders[lending]]
    return found


def _band_keys(sketches: Any, band: int) -> Any:
    """One number for each row that is equal where all hashes of the band are: as many from each part."""
    rows, parts, _ = sketches.shape
    each = BAND // parts
    keys: Any = np.full(rows, np.uint64(band + 1))
    for part in range(parts):
        for place in range(band * each, (band + 1) * each):
            keys = _mixed(keys * np.uint64(0x9E3779B97F4A7C15) + sketches[:, part, place])
    return keys


def _candidates(keys: Any) -> list[tuple[Any, Any]]:
    """(earlier rows, later rows) with equal keys: each row with the first of its kind, and with the one before it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same: Any = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    if not len(same):
        return []
    starts: Any = np.zeros(len(ordered), np.int64)
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    starts[begins] = begins
    first = np.maximum.accumulate(starts)[same]
    with_first, with_last = (order[first], order[same]), (order[same - 1], order[same])
    other = with_first[0] != with_last[0]
    return [with_first, (with_last[0][other], with_last[1][other])]
