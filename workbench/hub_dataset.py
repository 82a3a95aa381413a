"""Datasets that come through the `datasets` library: from the Hub, or from a folder that save_to_disk made.

Owns how such a source is written (hf:NAME[:CONFIG][:SPLIT], FOLDER[:SPLIT]) and the child process
`python -m workbench.hub_dataset`, in which alone `datasets` is imported: that takes seconds and much memory, and it may
run out of memory without taking anything else with it. The child writes one Parquet file and one JSON line. HF_HOME,
HF_HUB_OFFLINE, HF_TOKEN and their kin are the child's environment unchanged; no token is ever printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import DiskFull, UnreadableData, UsageError, disk_full, is_out_of_space

_MARKS = ("dataset_dict.json", "state.json", "dataset_info.json")


@dataclass(frozen=True)
class HubSource:
    """A source that is read through `datasets`."""

    kind: str
    """"hub" or "saved"."""
    written: str
    """As it is recorded and shown."""
    name: str
    """The Hub's name, or the absolute path of the saved folder."""
    parts: tuple[str, ...]
    """What stood behind colons: configuration and split (hub), split (saved)."""


def parse_source(text: str) -> HubSource | None:
    """The Hub dataset or saved folder that `text` names; None where it names neither (a file, then)."""
    if text.startswith("hf:"):
        name, *parts = text.removeprefix("hf:").split(":")
        if not name or len(parts) > 2 or not all(parts):
            raise UsageError(f"{text!r}: write hf:NAME, hf:NAME:SPLIT, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT.")
        return HubSource("hub", text, name, tuple(parts))
    path = os.path.abspath(os.path.expanduser(text))
    if _is_saved(path):
        return HubSource("saved", path, path, ())
    folder, colon, split = path.rpartition(":")
    if colon and not os.path.exists(path) and _is_saved(folder):
        return HubSource("saved", path, folder, (split,))
    return None


def _is_saved(path: str) -> bool:
    return os.path.isdir(path) and any(os.path.isfile(os.path.join(path, mark)) for mark in _MARKS)


def fetch(source: HubSource, target: Path) -> dict[str, str]:
    """Writes the rows of `source` to the Parquet file `target`, in a child; returns what is known of their origin."""
    request = json.dumps({"kind": source.kind, "name": source.name, "parts": source.parts, "target": str(target)})
    child = subprocess.run(
        [sys.executable, "-m", "workbench.hub_dataset", request],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )
    lines = child.stdout.strip().splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        answer = {}
    if child.returncode == 0 and "details" in answer:
        return {str(key): str(value) for key, value in answer["details"].items()}
    if answer.get("disk_full"):
        raise disk_full(f"fetching {source.written}", target.parent)
    if "error" in answer:
        raise UnreadableData(f"{source.written}: {answer['error']}")
    last = child.stderr.strip().splitlines()[-1:] or ["no message"]
    raise UnreadableData(f"{source.written}: the process that reads it ended with {child.returncode}: {last[0][:300]}")


def main(arguments: list[str]) -> int:
    """The child: one request as JSON in, one answer as JSON on the last line of stdout."""
    request = json.loads(arguments[0])
    try:
        details = _write_parquet(request)
    except Exception as error:  # the boundary of the process: every failure becomes one line for a person
        full = is_out_of_space(error) or isinstance(error, DiskFull)
        print(json.dumps({"error": _explain(request, error), "disk_full": full}))
        return 1
    print(json.dumps({"details": details}))
    return 0


def _write_parquet(request: dict[str, Any]) -> dict[str, str]:
    import datasets

    datasets.disable_progress_bars()
    if request["kind"] == "saved":
        loaded, details = _load_saved(datasets, request["name"], *request["parts"])
    else:
        loaded, details = _load_hub(datasets, request["name"], list(request["parts"]))
    if len(loaded) == 0:
        raise UnreadableData("it is empty: it has no rows.")
    loaded.to_parquet(request["target"])
    fingerprint = getattr(loaded, "_fingerprint", "")
    return {**details, "fingerprint": fingerprint, "datasets_version": datasets.__version__}


def _load_saved(datasets: Any, folder: str, split: str = "") -> tuple[Any, dict[str, str]]:
    loaded = datasets.load_from_disk(folder)
    if not isinstance(loaded, datasets.DatasetDict):
        if split:
            raise UsageError(f"the folder holds one dataset without splits; name it without :{split}.")
        return loaded, {}
    chosen = _choose_split(list(loaded), split, folder)
    return loaded[chosen], {"split": chosen, "splits_there": ", ".join(loaded)}


def _load_hub(datasets: Any, name: str, parts: list[str]) -> tuple[Any, dict[str, str]]:
    """One part is a configuration where one has that name, else a split."""
    configurations = list(datasets.get_dataset_config_names(name))
    configuration = split = ""
    if len(parts) == 2:
        configuration, split = parts
    elif parts and parts[0] in configurations:
        configuration = parts[0]
    elif parts:
        split = parts[0]
    if not configuration:
        if len(configurations) > 1 and "default" not in configurations:
            raise UsageError(f"name a configuration, as in hf:{name}:{configurations[0]}. {_listed(configurations)}")
        configuration = "default" if "default" in configurations else configurations[0]
    elif configuration not in configurations:
        raise UsageError(f"there is no configuration {configuration!r}. {_listed(configurations)}")
    splits = list(datasets.get_dataset_split_names(name, configuration))
    chosen = _choose_split(splits, split, f"hf:{name}:{configuration}")
    loaded = datasets.load_dataset(name, configuration, split=chosen)
    return loaded, {"configuration": configuration, "split": chosen, "splits_there": ", ".join(splits)}


def _choose_split(splits: list[str], asked: str, where: str) -> str:
    if asked:
        if asked not in splits:
            raise UsageError(f"there is no split {asked!r}. {_listed(splits)}")
        return asked
    if len(splits) == 1:
        return splits[0]
    if "train" in splits:
        return "train"
    raise UsageError(f"name one of its splits, as in {where}:{splits[0]}. {_listed(splits)}")


def _listed(names: list[str]) -> str:
    return "There are: " + ", ".join(names[:20]) + ("…" if len(names) > 20 else "") + "."


def _explain(request: dict[str, Any], error: Exception) -> str:
    """The failure in one line, with what to do; told by the names of exceptions, which differ between versions."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if isinstance(error, (UsageError, UnreadableData)):
        return said
    if "GatedRepoError" in kinds or "gated" in said.lower():
        return "the dataset is gated: accept its terms on the Hub, then set HF_TOKEN (or run: hf auth login)."
    offline = any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in _OFFLINE_VARIABLES)
    if offline and request["kind"] == "hub":
        return "it is not in the local cache and HF_HUB_OFFLINE or HF_DATASETS_OFFLINE switches the Hub off. Unset it."
    if "DatasetNotFoundError" in kinds or "RepositoryNotFoundError" in kinds:
        return "the Hub has no such dataset, or it is private: check the name; for a private one set HF_TOKEN."
    if kinds & {
        "ConnectionError",
        "ConnectError",
        "OfflineModeIsEnabled",
        "LocalEntryNotFoundError",
        "TimeoutException",
    }:
        return f"the Hub cannot be reached ({said}). Check the network, or add a file instead."
    return f"`datasets` cannot read it: {type(error).__name__}: {said}"


_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
