"""[rewards] of run.toml: what judges completions beside the reward model of [model], and how much each counts.

Owns its keys, and what each reward of a run is called in the names of metrics. Invariant: a launch writes a weight, a
file and a hash for each function. What a function is given and must give is in `engine.rewards`; how rewards are added
up is in `engine.methods.rewards`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.run.config_bounds import bounded as _key

WRITTEN_BY_LAUNCH = (
    *("model_weight", "more_models", "more_paths", "more_adapters", "more_sha256", "more_weights", "apart_parameters"),
    *("functions", "function_weights", "function_files", "function_sha256"),
)
"""Keys that have flags of their own, or that a launch finds out."""


@dataclass(frozen=True)
class RewardsConfig:
    """[rewards]: what judges completions beside the reward model of [model], and the weights of all rewards."""

    model_weight: float = 1.0
    """Of the reward model of [model] in the sum of the rewards."""
    more_models: tuple[str, ...] = ()
    """Further reward models, as the person wrote them; the first is that of [model]."""
    more_paths: tuple[str, ...] = ()
    """The base folder of each, or its own where it has no adapter."""
    more_adapters: tuple[str, ...] = ()
    """The adapter folder of each; empty for one that has none."""
    more_sha256: tuple[str, ...] = ()
    """Fingerprint of each."""
    more_weights: tuple[float, ...] = ()
    """Of each in the sum."""
    apart_parameters: int = _key(0, at_least=0)
    """Weights of the reward models that do not share the run's base and are held beside it."""
    functions: tuple[str, ...] = ()
    """Python functions, as the person wrote them: FILE.py:FUNCTION or MODULE:FUNCTION."""
    function_weights: tuple[float, ...] = ()
    """Of each function in the sum; below 0 for what is to be avoided, 0 for what is only watched."""
    function_files: tuple[str, ...] = ()
    """The file of each function at launch; what is run is the copy in the run's folder rewards."""
    function_sha256: tuple[str, ...] = ()
    """Content of each file, which must be approved on the machine that trains."""
    time_limit_s: float = _key(60.0, above=0)
    """What one call of a function, with all completions of a step, may take; then it is tried once more."""
    memory_limit_mb: int = _key(8192, at_least=0)
    """Data that the process which calls the functions may hold; 0: any amount."""

    @property
    def function_names(self) -> tuple[str, ...]:
        """The name of each function alone."""
        return tuple(written.rpartition(":")[2] for written in self.functions)
