"""The reward models of a run, and which of them share its base.

Owns how [model] and [rewards] say them: the first in [model], further ones in [rewards]. A reward model that is an
adapter over the very base that the policy's adapter lies over is one more role on that base; any other is loaded beside
it, with its own tokenizer. Invariant: a pure function of run.toml and of where its folders lie. Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError
from engine.run.config import RunConfig
from engine.run.folder import RunFolder


@dataclass(frozen=True)
class RewardModel:
    """A reward model of a run."""

    source: str
    """As the person wrote it."""
    path: Path
    """Its base's folder, or its own where it has no adapter."""
    adapter: Path | None
    weight: float
    on_base: bool
    """Whether it is a role on the run's base."""

    @property
    def head_folder(self) -> Path:
        """Where its head lies."""
        return self.adapter or self.path


def model_sources(config: RunConfig) -> set[str]:
    """Every model that a run is made with, as the person wrote it."""
    return {config.model.source, config.model.reward_source, *config.rewards.more_models} - {""}


def model_folders(config: RunConfig) -> set[str]:
    """The folders of every model and adapter that a run is made with, as run.toml has them."""
    model, rewards = config.model, config.rewards
    folders = {model.path, model.adapter, model.reward_path, model.reward_adapter}
    return (folders | {*rewards.more_paths, *rewards.more_adapters}) - {""}


def reward_models(config: RunConfig, folder: RunFolder) -> list[RewardModel]:
    """The reward models of a run in the order of its rewards. Raises ConfigError where lists do not fit together."""
    model, rewards = config.model, config.rewards
    written = [(model.reward_source, model.reward_path, model.reward_adapter, rewards.model_weight)]
    lists = (rewards.more_models, rewards.more_paths, rewards.more_adapters, rewards.more_weights)
    if len({len(one) for one in lists}) > 1:
        raise ConfigError(
            "run.toml: [rewards] more_models, more_paths, more_adapters and more_weights have "
            f"{', '.join(str(len(one)) for one in lists)} entries, expected as many of each. Start the run anew"
        )
    written = [one for one in [*written, *zip(*lists, strict=True)] if one[1] or one[2]]
    base = folder.in_workspace(model.path).resolve()
    found = []
    for source, path, adapter, weight in written:
        place = folder.in_workspace(path)
        own = folder.in_workspace(adapter) if adapter else None
        on_base = own is not None and place.resolve() == base and config.adapter.kind != "full"
        found.append(RewardModel(source, place, own, weight, on_base))
    return found
