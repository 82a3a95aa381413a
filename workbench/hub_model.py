"""Brings a model of the Hugging Face Hub into the Hub's own cache: `python -m workbench.hub_model ORG/NAME [REVISION]`.

Runs as a child, so that the network and its library stay out of the command line's process. HF_HOME, HF_HUB_OFFLINE,
HF_TOKEN and their kin are honoured by the library itself. Only configuration, tokenizer and safetensors files are
fetched; pickled weights never are. The last line on stdout is {"folder", "revision"}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

WANTED = ("*.json", "*.safetensors", "tokenizer.model", "*.jinja", "merges.txt", "vocab.txt")
UNWANTED = ("*/*",)


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
    from huggingface_hub import snapshot_download
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
    if isinstance(error, errors.GatedRepoError):
        return f"{name}: access must be granted on its Hub page first; then set HF_TOKEN or run `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name}: the repository has no such revision; leave @REV out for the newest one"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{name}: no such model on the Hub, or it is private; check the name, or set HF_TOKEN"
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
