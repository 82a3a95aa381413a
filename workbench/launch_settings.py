"""The settings of a method as a form shows them: which matter, what each is called, its default, what it means.

Owns the choice of the few that matter. What a key means is read from the engine's config, where it is written once.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from functools import cache
from typing import Any

from engine.run.config import SECTIONS, sections_of
from engine.run.config_layers import resolve
from workbench.run_clone import FOUND, as_typed

_OF_METHOD = {
    "sft": ("optim.lr", "train.epochs", "train.batch_size", "data.max_length"),
    "reward": ("optim.lr", "train.epochs", "train.batch_size", "data.max_length", "reward.center_coef"),
    "dpo": ("dpo.beta", "optim.lr", "train.epochs", "train.batch_size", "data.max_length"),
    "simpo": ("simpo.beta", "simpo.gamma", "optim.lr", "train.epochs", "train.batch_size", "data.max_length"),
    "cpo": ("cpo.beta", "cpo.sft_coef", "optim.lr", "train.epochs", "train.batch_size", "data.max_length"),
    "orpo": ("orpo.beta", "optim.lr", "train.epochs", "train.batch_size", "data.max_length"),
    "kto": (
        "kto.beta",
        "kto.desirable_weight",
        "kto.undesirable_weight",
        "optim.lr",
        "train.epochs",
        "train.batch_size",
    ),
    "ppo": ("ppo.kl_coef", "optim.lr", "train.steps", "train.batch_size", "ppo.max_new_tokens"),
    "grpo": ("grpo.kl_coef", "optim.lr", "train.steps", "train.batch_size", "grpo.generations", "grpo.max_new_tokens"),
    "rloo": ("rloo.kl_coef", "optim.lr", "train.steps", "train.batch_size", "rloo.generations", "rloo.max_new_tokens"),
}
WEIGHTS = ("adapter.kind", "adapter.r")
MATTERING = {method: (*keys, *WEIGHTS) for method, keys in _OF_METHOD.items()}
"""The few settings that decide how a run of a method goes, in the order in which one thinks of them."""
LABELS = {
    "optim.lr": "learning rate",
    "train.epochs": "epochs",
    "train.steps": "steps",
    "train.batch_size": "batch size",
    "data.max_length": "longest example",
    "data.weights_by": "shares of",
    "adapter.kind": "weights",
    "adapter.r": "lora rank",
    "dpo.beta": "beta",
    "simpo.beta": "beta",
    "simpo.gamma": "target margin",
    "cpo.beta": "beta",
    "cpo.sft_coef": "weight of nll",
    "orpo.beta": "odds ratio weight",
    "kto.beta": "beta",
    "kto.desirable_weight": "desirable weight",
    "kto.undesirable_weight": "undesirable weight",
    "ppo.kl_coef": "kl coefficient",
    "ppo.max_new_tokens": "longest answer",
    "grpo.kl_coef": "kl coefficient",
    "grpo.generations": "answers a prompt",
    "grpo.max_new_tokens": "longest answer",
    "rloo.kl_coef": "kl coefficient",
    "rloo.generations": "answers a prompt",
    "rloo.max_new_tokens": "longest answer",
    "reward.center_coef": "centering",
}


FORM_EXPLAINED = {
    "method": "what the run optimises",
    "model": "what is tuned: sample, run:ID, ./folder, ./file.gguf or hf:ORG/NAME",
    "reward_model": "what judges the rollouts: a run of train reward, best over the same base; several with weights",
    "rewards": "Python functions that judge them, too, with weights: lexicon.py:positive:0.3; 0 only watches",
    "data": "a dataset or preference set; several with their shares: A:0.7 B:0.3",
    "name": "what to call the run; empty: after its model",
    "eval_share": "share of a dataset's prompts that is held out; a preference set brings its own split",
}
"""What the fields of the form mean that are no settings."""


def all_keys(method: str) -> tuple[str, ...]:
    """Every setting that a person may choose for a method, in the order of run.toml."""
    names = [f"{section}.{key.name}" for section in sections_of(method) for key in fields(SECTIONS[section])]
    return tuple(name for name in names if name not in FOUND)


def default_of(method: str, key: str) -> str:
    """The default of a setting, as one would type it."""
    return _defaults(method)[key]


def explanation_of(key: str) -> str:
    """What a setting means, from the line under it in the engine's config."""
    section, _, name = key.partition(".")
    found = (_explanations().get((owner.__name__, name)) for owner in SECTIONS[section].__mro__)
    return next(filter(None, found), "")


@cache
def _defaults(method: str) -> dict[str, str]:
    config = resolve(method, []).config
    found = {}
    for section in sections_of(method):
        for key in fields(SECTIONS[section]):
            value: Any = getattr(getattr(config, section), key.name)
            found[f"{section}.{key.name}"] = as_typed(value) if value != () else ""
    return found


@cache
def _explanations() -> dict[tuple[str, str], str]:
    """(class, key) -> the string under the key; empty where the sources are not there."""
    try:
        sources = [inspect.getsource(module) for section in SECTIONS.values() if (module := inspect.getmodule(section))]
        trees = [ast.parse(source) for source in dict.fromkeys(sources)]
    except (OSError, SyntaxError):
        return {}
    found: dict[tuple[str, str], str] = {}
    for owner in [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]:
        key = ""
        for node in owner.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                key = node.target.id
            elif key and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                found[(owner.name, key)] = str(node.value.value)
    return found
