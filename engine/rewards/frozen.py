"""The copies of reward functions in a run's folder, which are what the run calls.

Owns rewards/ of a run folder. Invariant: what is called has the sha256 that run.toml says and that was approved on this
machine; whoever puts another file there, or another hash into run.toml, has not approved it. Torch-free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from engine.errors import RewardError
from engine.rewards.approvals import require_approved
from engine.rewards.function_files import FunctionFile, frozen_name
from engine.rewards.process import Callee
from engine.run.config_rewards import RewardsConfig
from engine.run.durable_files import disk_faults_named, write_atomically


def freeze_functions(functions: Sequence[FunctionFile], into: Path) -> None:
    """Copy the files of functions into a run's folder for them. Raises RunFolderError."""
    if not functions:
        return
    with disk_faults_named("keeping reward functions", into):
        into.mkdir(mode=0o700, exist_ok=True)
        for function in functions:
            write_atomically(into / function.frozen_name, function.content)


def approved_functions(config: RewardsConfig, folder: Path, labels: Sequence[str] = ()) -> list[Callee]:
    """The functions of a run, read from its `folder` of copies.

    Raises RewardError where a copy is not the recorded one, NotApproved where nobody approved it on this machine.
    """
    keys = ("function_weights", "function_files", "function_sha256")
    for key in keys:
        if len(getattr(config, key)) != len(config.functions):
            raise RewardError(
                f"run.toml: [rewards] {key} has {len(getattr(config, key))} entries for {len(config.functions)} "
                "functions, expected one for each, as a launch writes them. Start the run anew"
            )
    names = config.function_names
    callees = []
    for number, (file, sha256) in enumerate(zip(config.function_files, config.function_sha256, strict=True)):
        copy = folder / frozen_name(file, sha256)
        source = _verified(copy, sha256)
        require_approved(sha256, copy)
        callees.append(Callee(labels[number] if labels else names[number], copy, source, names[number]))
    return callees


def _verified(copy: Path, sha256: str) -> bytes:
    try:
        source = copy.read_bytes()
    except OSError as error:
        raise RewardError(
            f"{copy}: cannot be read ({error.strerror}): it is the run's copy of a reward function. Put it back, or "
            "clone the run"
        ) from error
    found = hashlib.sha256(source).hexdigest()
    if found != sha256:
        raise RewardError(
            f"{copy}: its sha256 is {found}, but run.toml says {sha256}: it is not the file that the run was launched "
            "with. Put that back, or clone the run"
        )
    return source
