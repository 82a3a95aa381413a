"""What a person has put into the form that starts a run, as it was typed, and the request that it becomes.

Owns that text and nothing else: what is wrong with it, and what stands around it, is `workbench.launch_form`'s.
Invariant: a setting that another one makes idle stays in the draft, so that nothing is lost, and is not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from engine.errors import EngineError
from engine.run.config import sections_of
from engine.run.config_layers import SET, parse_set, resolve
from engine.run.idle_settings import idle_settings, value_in
from engine.run.method_names import ON_ROLLOUTS
from workbench.data_weights import split_written
from workbench.launch_settings import default_of
from workbench.run_examples import EVAL_SHARE
from workbench.run_launch import LaunchRequest

FORM = ("method", "model", "reward_model", "rewards", "data", "name", "eval_share")
"""Fields that are no key of run.toml."""


@dataclass(frozen=True)
class Draft:
    """What a person has chosen so far; settings are as typed, and only those that were typed."""

    method: str = "sft"
    model: str = ""
    reward_model: str = ""
    rewards: str = ""
    data: str = ""
    name: str = ""
    eval_share: str = ""
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def value(self, key: str) -> str:
        """What stands in a field; for a setting the default where nothing was typed."""
        if key in FORM:
            return str(getattr(self, key))
        return self.settings.get(key, default_of(self.method, key))

    def put(self, key: str, text: str) -> Draft:
        """The draft with another value in a field; the empty text brings a setting's default back."""
        text = text.strip()
        if key == "method":
            kept = {name: value for name, value in self.settings.items() if name.partition(".")[0] in sections_of(text)}
            return replace(self, method=text, settings=MappingProxyType(kept))
        if key in FORM:
            change: dict[str, Any] = {key: text}
            return replace(self, **change)
        settings = {name: value for name, value in self.settings.items() if name != key}
        if text and text != default_of(self.method, key):
            settings[key] = text
        return replace(self, settings=MappingProxyType(settings))

    def counting(self) -> dict[str, str]:
        """The settings that were typed and that no other one makes idle: those stay in the form and have no effect."""
        idle = self.idle()
        return {key: text for key, text in self.settings.items() if key not in idle}

    def idle(self) -> dict[str, str]:
        """Settings of any kind that mean nothing beside another one -> that one."""
        return {key: rule.by for key, rule in idle_settings(self._typed).items()}

    def _typed(self, key: str) -> Any:
        """The value of a setting; the default where what was typed cannot be."""
        for text in (self.settings.get(key), default_of(self.method, key)):
            with suppress(EngineError):
                if text is not None:
                    layer = [(SET, parse_set(f"{key}={text}", self.method))]
                    return value_in(resolve(self.method, layer, together=False).config, key)
        raise AssertionError(f"the default of {key} cannot be")

    def request(self) -> LaunchRequest:
        """What the command line would be given."""
        return LaunchRequest(
            method=self.method,
            model=self.model,
            data=split_written(self.data),
            reward_models=split_written(self.reward_model) if self.method in ON_ROLLOUTS else (),
            rewards=split_written(self.rewards) if self.method in ON_ROLLOUTS else (),
            settings=tuple(f"{key}={text}" for key, text in self.counting().items()),
            name=self.name,
            eval_share=float(self.eval_share) if self.eval_share else EVAL_SHARE,
        )


def draft_of(request: LaunchRequest) -> Draft:
    """A request as a draft, so that it can be looked at and changed."""
    settings = {}
    for text in request.settings:
        key, _, value = text.partition("=")
        settings[key] = value
    if request.device:
        settings["train.device"] = request.device
    return Draft(
        method=request.method,
        model=request.model,
        reward_model=" ".join(request.reward_models),
        rewards=" ".join(request.rewards),
        data=" ".join(request.data),
        name=request.name,
        eval_share="" if request.eval_share == EVAL_SHARE else f"{request.eval_share:g}",
        settings=MappingProxyType(settings),
    )
