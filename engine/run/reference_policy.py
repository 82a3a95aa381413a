"""What a run's reference is, in words: the policy that losses and every sampled KL measure a run's own against.

A pure function of run.toml, so that a screen can say it of any run and the worker of its own. Invariant: it says what
`engine.model.adapters.build_roles` does.
"""

from __future__ import annotations

from engine.run.config import RunConfig


def reference_name(config: RunConfig) -> str:
    """The model that the reference is or was taken from, as a person names it; empty where there is no reference."""
    return "" if config.run.method == "reward" or config.run.imported else config.model.source or config.model.path


def reference_words(config: RunConfig) -> str:
    """One phrase; empty for a method that has no reference, and where another program knows it."""
    if config.run.method == "reward" or config.run.imported:
        return ""
    source = config.model.source or config.model.path
    if config.adapter.kind == "full":
        merged = ", its adapter merged" if config.model.adapter else ""
        return f"a frozen copy of all weights of {source}{merged}, as they were before the first step"
    if config.model.adapter:
        return f"the adapter of {source}, frozen as it was before the first step, over the same base"
    return f"{source} itself, without the adapter that is trained"
