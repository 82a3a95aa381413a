"""Brings a model of the Hugging Face Hub into the Hub's own cache: `python -m workbench.hub_model ORG/NAME [REVISION]`.

Runs as a child, so that the network and its library stay out of the command line's process. HF_HOME, HF_HUB_OFFLINE,
HF_TOKEN and their kin are honoured by the library itself. Only configuration, tokenizer and safetensors files are
fetched; pickled weights never are. A pinned commit that lies whole in the cache is taken from there and nothing
connects; before a download the disk is asked whether it has the room; where the Hub cannot be reached, what is cached
is taken. The last line on stdout is {"folder", "revision"}.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.model.model_files import weight_files
from engine.run.durable_files import free_megabytes

WANTED = ("*.json", "*.safetensors", "tokenizer.model", "*.jinja", "merges.txt", "vocab.txt")
UNWANTED = ("*/*",)
SPARE_MB = 200
"""Left free beside a download, for what the run itself writes first."""


def main(argv: list[str] | None = None) -> int:
    """Fetch one model; 1 with one line on stderr where that is not possible."""
    arguments = sys.argv[1:] if argv is None else argv
    if not 1 <= len(arguments) <= 2:
        print("usage: python -m workbench.hub_model ORG/NAME [REVISION]", file=sys.stderr)
        return 2
    repository, revision = arguments[0], arguments[1] if len(arguments) > 1 else None
    try:
        folder = Path(fetch(repository, revision))
    except Exception as error:  # the library's errors have no common base; every one of them becomes one line
        print(explain(error, repository, revision), file=sys.stderr)
        return 1
    fault = fault_of(folder, repository)
    if fault:
        print(fault, file=sys.stderr)
        return 1
    print(json.dumps({"folder": str(folder), "revision": folder.name}))
    return 0


def fetch(repository: str, revision: str | None) -> str:
    """The snapshot folder in the cache, after downloading what it lacks."""
    from huggingface_hub import constants, errors, snapshot_download

    if pinned := _whole_in_the_cache(repository, revision):
        return str(pinned)
    if not constants.HF_HUB_OFFLINE:
        try:
            _require_space(repository, revision)
        except (NoSpace, errors.GatedRepoError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
            raise
        except Exception as error:  # the library names a network that is not there in many ways
            return _cached_or(error, repository, revision)
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class ProgressLines(tqdm):
        """The library's progress bar, as JSON lines on stdout."""

        def __init__(self, *args: Any, **keywords: Any) -> None:
            keywords["file"] = open(os.devnull, "w")  # noqa: SIM115  # lives as long as the bar
            keywords.pop("name", None)
            super().__init__(*args, **keywords)

        def update(self, n: float | None = 1) -> Any:
            shown = super().update(n)
            print(json.dumps({"done": self.n, "total": self.total or 0, "what": repository}), flush=True)
            return shown

    folder: str = snapshot_download(
        repository,
        revision=revision,
        allow_patterns=list(WANTED),
        ignore_patterns=list(UNWANTED),
        tqdm_class=ProgressLines,
    )
    return folder


def _whole_in_the_cache(repository: str, revision: str | None) -> Path | None:
    """The snapshot of a pinned commit, where no file of it is missing: a commit never changes."""
    from huggingface_hub import constants

    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        return None
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots" / revision
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        return None
    try:
        weight_files(folder)
    except ModelError:
        return None
    return folder


def _cached_or(error: Exception, repository: str, revision: str | None) -> str:
    """The snapshot in the cache, newest or as asked for; raises `error` where there is none."""
    from huggingface_hub import snapshot_download

    try:
        folder: str = snapshot_download(repository, revision=revision, local_files_only=True)
    except Exception:  # it is not there: then the reason why it cannot be fetched is what a person needs
        raise error from None
    return folder


def _require_space(repository: str, revision: str | None) -> None:
    """Raises NoSpace where what would be downloaded does not fit."""
    from huggingface_hub import constants, snapshot_download

    files: Any = snapshot_download(
        repository, revision=revision, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED), dry_run=True
    )
    needed = sum(file.file_size or 0 for file in files if file.will_download) / 2**20
    free = free_megabytes(Path(constants.HF_HUB_CACHE))
    if needed and free < needed + SPARE_MB:
        raise NoSpace(
            f"hf:{repository}: {needed:,.0f} MB would be downloaded and {free:,} MB are free at "
            f"{constants.HF_HUB_CACHE}: free some, or set HF_HOME to a larger disk"
        )


class NoSpace(Exception):
    """The disk has no room for a download."""


def fault_of(folder: Path, repository: str) -> str | None:
    """Why a snapshot cannot be used as a model, or None."""
    if not (folder / "config.json").is_file():
        return (
            f"hf:{repository} has no config.json: it is not a transformers model (a GGUF file is named as ./file.gguf)"
        )
    if not list(folder.glob("*.safetensors")):
        return (
            f"hf:{repository} has no safetensors weights; pickled weights are refused. Look for a converted repository"
        )
    return None


def explain(error: Exception, repository: str, revision: str | None) -> str:
    """What went wrong and what to do, in one line."""
    from huggingface_hub import constants, errors

    name = f"hf:{repository}{f'@{revision}' if revision else ''}"
    cache = constants.HF_HUB_CACHE
    page = f"{constants.ENDPOINT}/{repository}"
    token = f"set HF_TOKEN, or run `hf auth login`, which keeps the token in {constants.HF_TOKEN_PATH}"
    if isinstance(error, NoSpace):
        return str(error)
    if isinstance(error, errors.GatedRepoError):
        return f"{name}: its owner grants access: accept the conditions at {page} with your account, then {token}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name}: the repository has no such revision: see {page}/commits, or leave @REV out for the newest"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{name}: there is no {page}, or it is private: check the name, or {token}"
    if isinstance(error, errors.HFValidationError):
        return f"{name}: not a Hub name; expected hf:ORG/NAME or hf:ORG/NAME@REVISION"
    if constants.HF_HUB_OFFLINE:
        return (
            f"{name}: not in the Hub cache at {cache}, and HF_HUB_OFFLINE is set; unset it, or fetch the model on a "
            f"machine with network (hf download {repository}) and copy that cache"
        )
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError)):
        first = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        return (
            f"{name}: not in the Hub cache at {cache}, and the Hub cannot be reached ({first[0][:200]}); check the "
            "network (HF_ENDPOINT, HTTPS_PROXY), or use a ./folder"
        )
    return f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:400]}"


if __name__ == "__main__":
    sys.exit(main())
