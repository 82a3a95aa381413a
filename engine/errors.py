"""Every error the engine raises on purpose.

    EngineError
    ├── ConfigError       run.toml, a recipe or --set says something that cannot be
    ├── DataError         examples that cannot be read or used
    │   └── PrefixRewritten   a chat template that writes a beginning otherwise once more follows
    ├── ModelError        a model folder, an adapter or a tokenizer that does not fit
    ├── CheckpointError   a checkpoint that cannot be written or trusted
    ├── RunFolderError    a run folder that is torn, taken, unwritable or full
    ├── DeviceTaken       a GPU that another process has leased
    ├── RewardError       a reward that cannot be called, or that gives something that is no score
    │   └── NotApproved       a file of reward functions that nobody approved on this machine
    ├── NumericalError    losses or gradients that are no numbers
    ├── PeerLost          another of the processes that train together has ended; its reason counts, not this
    └── StopRequested     not a fault: the run was asked to stop
        └── StoppedByAlarm    by an alarm of its own

Each message says what was found, where, what was expected and what to do.
"""

from __future__ import annotations


class EngineError(Exception):
    """Something a person can understand and act on."""


class ConfigError(EngineError):
    """A setting that cannot be."""


class DataError(EngineError):
    """Examples that cannot be read or used."""


class PrefixRewritten(DataError):
    """A chat template writes the beginning of a conversation otherwise once more follows it."""


class ModelError(EngineError):
    """A model folder, an adapter or a tokenizer that does not fit."""


class CheckpointError(EngineError):
    """A checkpoint that cannot be written or trusted."""


class RunFolderError(EngineError):
    """A run folder that is torn, taken, unwritable or full."""


class DeviceTaken(EngineError):
    """A GPU that another process has leased."""


class RewardError(EngineError):
    """A reward that cannot be called, or that gives something that is no score."""

    row: int | None = None
    """With which completion of those that it was given; None where that is not known."""


class NotApproved(RewardError):
    """A file of reward functions that nobody approved on this machine."""


class NumericalError(EngineError):
    """Losses or gradients that are no numbers, too often to go on."""


class PeerLost(EngineError):
    """Another process of this run has ended, so this one cannot go on."""


class StopRequested(EngineError):
    """The run was asked to stop; raised only where no step is half done."""


class StoppedByAlarm(StopRequested):
    """An alarm ends the run for now."""

    def __init__(self, alarm: str, action: str, step: int) -> None:
        """`action` is pause or stop, as in the alarm's section of run.toml."""
        super().__init__(f"{action} by the alarm {alarm} at step {step}")
        self.by = {"alarm": alarm, "action": action}
