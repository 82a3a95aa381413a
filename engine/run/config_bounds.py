"""What a key of run.toml may be: the bounds that stand beside its default.

Owns their meaning and the words for a value outside them. Refuses to know any key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """What a key may be."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    usual: str = ""
    """What people usually take, for the error message."""

    def fault(self, value: Any) -> str | None:
        """What `value` must be, where it is not."""
        checks = (
            (self.above is not None and not value > self.above, f"must be > {self.above}"),
            (self.at_least is not None and not value >= self.at_least, f"must be at least {self.at_least}"),
            (self.below is not None and not value < self.below, f"must be < {self.below}"),
            (self.at_most is not None and not value <= self.at_most, f"must be at most {self.at_most}"),
            (bool(self.choices) and value not in self.choices, f"must be one of {', '.join(map(repr, self.choices))}"),
        )
        faults = [text for wrong, text in checks if wrong]
        if not faults:
            return None
        return " and ".join(faults) + (f" ({self.usual})" if self.usual else "")


def bounded(default: Any, **bounds: Any) -> Any:
    """A key with its default and its Bounds; used in the dataclasses of the sections."""
    return field(default=default, metadata={"bounds": Bounds(**bounds)})
