"""The section of run.toml that says how conversations become text.

Owns its keys. A person chooses template, arguments, eos and pad; what they come to for the model of the run is written
beside them at launch, so that a run renders the same even where the model's folder has changed since.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.run.config_bounds import bounded as _key

UNKNOWN = -1
"""Of an id: a run that was launched without looking."""


@dataclass(frozen=True)
class ChatConfig:
    """[chat]: how conversations become text. The template itself is chat_template.jinja beside run.toml."""

    template: str = ""
    """A .jinja file in place of the model's own chat template; empty: the model's own."""
    arguments: str = ""
    """Values for the template: NAME=VALUE, separated by commas, for example enable_thinking=false."""
    eos: str = ""
    """The token that ends a text, as it is written; empty: the model's own."""
    pad: str = ""
    """The token that fills unused slots while sampling, as it is written; empty: the model's own."""
    template_sha256: str = ""
    """Content of the run's chat_template.jinja; empty where the model has no template."""
    eos_id: int = _key(UNKNOWN, at_least=UNKNOWN)
    """Id of the token that ends a text."""
    end_of_turn_id: int = _key(UNKNOWN, at_least=UNKNOWN)
    """Id of the token that ends an assistant turn."""
    pad_id: int = _key(UNKNOWN, at_least=UNKNOWN)
    """Id of the token that fills unused slots."""


CHAT_FOUND = ("template_sha256", "eos_id", "end_of_turn_id", "pad_id")
"""Keys that a launch writes itself."""
