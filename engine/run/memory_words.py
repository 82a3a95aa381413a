"""Out of memory, in words: by how much, and what to lower.

Owns the reading of the messages of torch's allocators and of the system's own figure.
"""

from __future__ import annotations

import re

from engine.run.config import RunConfig

_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMGT]iB)")
_FREE = re.compile(r"of which ([\d.]+) (bytes|[KMGT]iB) is free")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the device had no more memory to give."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or "out of memory" in text
        or "not enough memory" in text
        or ("can't allocate memory" in text)
    )


def out_of_memory(text: str, config: RunConfig | None, free_bytes: int | None) -> str:
    """What happened and what to do. `text` is the allocator's message; `free_bytes` what the machine had left, used
    where the message does not say; `config` is None where the run's settings are not known."""
    asked, free = _bytes(_ASKED, text), _bytes(_FREE, text)
    free = free_bytes if free is None else free
    by = "" if asked is None else f": {_gigabytes(asked)} more were asked for"
    if asked is not None and free is not None:
        by += f" and {_gigabytes(free)} were free, {_gigabytes(max(0, asked - free))} too few"
    if not by and text:
        by = f": {text.splitlines()[0]}"
    return f"out of memory{by}. {_remedy(config)}"


def free_memory_bytes() -> int | None:
    """What this machine could still give without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = next((line for line in lines if line.startswith("MemAvailable:")), "")
        return int(found.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def _remedy(config: RunConfig | None) -> str:
    if config is None:
        return "Lower train.tokens_per_micro_batch, which does not change the result"
    budget, longest = config.train.tokens_per_micro_batch, config.data.max_length
    run = config.run.id or "ID"
    if budget > longest:
        lower = max(longest, budget // 2)
        return (
            f"Lower train.tokens_per_micro_batch (now {budget}), which does not change the result: workbench runs "
            f"resume {run} --set train.tokens_per_micro_batch={lower}"
        )
    return (
        f"A micro-batch holds one example already (train.tokens_per_micro_batch = {budget}, data.max_length = "
        f"{longest}): lower data.max_length, which cuts long examples: workbench runs clone {run} --set "
        f"data.max_length={max(2, longest // 2)}"
    )


def _bytes(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"
