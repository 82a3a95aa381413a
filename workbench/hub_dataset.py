"""Datasets that come through the `datasets` library: from the Hub, or from a folder that save_to_disk made; and Arrow.

Owns how such a source is written (hf:NAME[@REVISION][:CONFIG][:SPLIT], FOLDER[:SPLIT], FILE.arrow) and the child
process `python -m workbench.hub_dataset`, in which alone `datasets` is imported: that takes seconds and much memory,
and it may run out of memory without taking anything else with it. The child writes one Parquet file and one JSON line.
HF_HOME, HF_HUB_OFFLINE, HF_TOKEN and their kin are the child's environment unchanged; no token is ever printed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import DiskFull, UnreadableData, UsageError, disk_full, is_out_of_space

_ARROW = (".arrow", ".feather", ".ipc")
_COMMIT = re.compile(r"[@/]([0-9a-f]{40})/")
_WHOLE_COMMIT = re.compile(r"[0-9a-f]{40}")
_MARKS = ("dataset_dict.json", "state.json", "dataset_info.json")


@dataclass(frozen=True)
class HubSource:
    """A source that is read through `datasets`."""

    kind: str
    """"hub", "saved" or "arrow"."""
    written: str
    """As it is recorded and shown."""
    name: str
    """The Hub's name, or the absolute path of the saved folder or the Arrow file."""
    parts: tuple[str, ...]
    """What stood behind colons: configuration and split (hub), split (saved)."""
    revision: str = ""
    """A branch, tag or commit of the Hub's; empty for its main branch."""


def parse_source(text: str) -> HubSource | None:
    """The Hub dataset or saved folder that `text` names; None where it names neither (a file, then)."""
    if text.startswith("hf:"):
        first, *parts = text.removeprefix("hf:").split(":")
        name, at, revision = first.partition("@")
        if not name or len(parts) > 2 or not all(parts) or bool(at) != bool(revision):
            raise UsageError(
                f"{text!r}: write hf:NAME, hf:NAME:SPLIT, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT; NAME may be "
                "NAME@REVISION."
            )
        return HubSource("hub", text, name, tuple(parts), revision)
    path = os.path.abspath(os.path.expanduser(text))
    if path.lower().endswith(_ARROW) and os.path.isfile(path):
        return HubSource("arrow", path, path, ())
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
    asked = {"kind": source.kind, "name": source.name, "parts": source.parts, "revision": source.revision}
    request = json.dumps({**asked, "target": str(target)})
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
    if request["kind"] == "arrow":
        return _write_arrow(request["name"], request["target"])
    import datasets

    datasets.disable_progress_bars()
    if request["kind"] == "saved":
        loaded, details = _load_saved(datasets, request["name"], *request["parts"])
    else:
        loaded, details = _load_hub(datasets, request["name"], list(request["parts"]), request.get("revision", ""))
    if len(loaded) == 0:
        raise UnreadableData("it is empty: it has no rows.")
    loaded.to_parquet(request["target"])
    fingerprint = getattr(loaded, "_fingerprint", "")
    return {**details, "fingerprint": fingerprint, "datasets_version": datasets.__version__}


def _write_arrow(file: str, target: str) -> dict[str, str]:
    """An Arrow file of either kind as Parquet, batch by batch."""
    import pyarrow
    import pyarrow.parquet

    with pyarrow.memory_map(file) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        reader = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader
        rows = 0
        with pyarrow.parquet.ParquetWriter(target, reader.schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += len(batch)
    if not rows:
        raise UnreadableData("it is empty: it has no rows.")
    return {"pyarrow_version": pyarrow.__version__}


def _load_saved(datasets: Any, folder: str, split: str = "") -> tuple[Any, dict[str, str]]:
    loaded = datasets.load_from_disk(folder)
    if not isinstance(loaded, datasets.DatasetDict):
        if split:
            raise UsageError(f"the folder holds one dataset without splits; name it without :{split}.")
        return loaded, {}
    chosen = _choose_split(list(loaded), split, folder)
    return loaded[chosen], {"split": chosen, "splits_there": ", ".join(loaded)}


def _load_hub(datasets: Any, name: str, parts: list[str], revision: str = "") -> tuple[Any, dict[str, str]]:
    """One part is a configuration where one has that name, else a split."""
    at = {"revision": revision} if revision else {}
    configurations = list(datasets.get_dataset_config_names(name, **at))
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
    splits = list(datasets.get_dataset_split_names(name, configuration, **at))
    chosen = _choose_split(splits, split, f"hf:{name}:{configuration}")
    loaded = datasets.load_dataset(name, configuration, split=chosen, **at)
    details = {"configuration": configuration, "split": chosen, "splits_there": ", ".join(splits), **at}
    commit = _commit_of(loaded)
    if commit and _WHOLE_COMMIT.fullmatch(revision) and commit != revision:
        raise UsageError(
            f"what is stored here is commit {commit}, not {revision}. Connect to the Hub, or name that one."
        )
    return loaded, details | ({"commit": commit} if commit else {})


def _commit_of(loaded: Any) -> str:
    """The commit that the rows came from, by the names of the files; empty where they do not say it."""
    fetched = getattr(getattr(loaded, "info", None), "download_checksums", None) or {}
    stored = [file["filename"] for file in getattr(loaded, "cache_files", ())]
    return next((match[1] for name in (*fetched, *stored) if (match := _COMMIT.search(str(name)))), "")


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
    if request["kind"] == "arrow":
        return f"it cannot be read as Arrow: {said}"
    return f"`datasets` cannot read it: {type(error).__name__}: {said}"


_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
