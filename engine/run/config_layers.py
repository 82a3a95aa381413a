"""How a config comes to be: defaults < defaults of the method < recipe < --set, each value with its origin.

Owns every check of a setting. Invariant: a value that is out of type or range, or a key that does not exist, is refused
by name, with what was found, where it stands, and what would be right. Refuses to read files: layers arrive as nested
dicts, each with the words that say where it came from.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from typing import Any

from engine.errors import ConfigError
from engine.run.config import METHOD_DEFAULTS, SECTIONS, RunConfig, sections_of
from engine.run.config_alarms import METHODS_WITH
from engine.run.config_bounds import Bounds
from engine.run.config_schema import SCHEMA
from engine.run.config_together import together_fault
from engine.run.method_names import METHODS

SET = "--set"
_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_LISTS: dict[str, type] = {f"tuple[{name}, ...]": kind for name, kind in _TYPES.items()}
"""Types of keys that hold several values -> the type of each."""
# What other programs call a key, for the error message.
_ELSEWHERE = {
    "learning_rate": "optim.lr",
    "lr_scheduler_type": "optim.schedule",
    "warmup_ratio": "optim.warmup_share",
    "lr_decay_ratio": "optim.decay_share",
    "min_lr_rate": "optim.min_lr_share",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "max_steps": "train.steps",
    "per_device_train_batch_size": "train.batch_size",
    "micro_batch_size": "train.tokens_per_micro_batch",
    "gradient_checkpointing": "train.activation_checkpointing",
    "gradient_accumulation_steps": "train.tokens_per_micro_batch",
    "max_seq_length": "data.max_length",
    "lora_r": "adapter.r",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "target_modules": "adapter.targets",
    "use_rslora": "adapter.rslora",
    "use_dora": "adapter.dora",
    "load_in_4bit": "adapter.kind",
    "save_steps": "checkpoint.every",
    "eval_steps": "evaluation.every",
    "save_total_limit": "checkpoint.keep",
    "bf16": "train.precision",
    "fp16": "train.precision",
}
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_LIST_WORDS = {str: "a list of texts", int: "a list of whole numbers", float: "a list of numbers"}


@dataclass(frozen=True)
class Resolved:
    """A config and where each of its values came from."""

    config: RunConfig
    origins: dict[str, str]
    """"optim.lr" -> "default", "default for dpo", or the origin of the layer that set it; sections of other methods
    are left out."""


def resolve(method: str, layers: Sequence[tuple[str, dict[str, Any]]], *, together: bool = True) -> Resolved:
    """The config of a run of `method`; later layers win. Raises ConfigError at the first thing that cannot be.

    `together=False` checks each value by itself, and not what keys mean beside each other.

    A recipe may hold sections of other methods: they are checked and left out. From --set they are an error, because
    there they would be a mistake that nothing shows.
    """
    if method not in METHODS:
        raise ConfigError(f"{method!r} is no method{_nearest(method, METHODS)}: choose one of {', '.join(METHODS)}")
    wanted = sections_of(method)
    values = {f"{s}.{f.name}": f.default for s in wanted for f in fields(SECTIONS[s])}
    origins = dict.fromkeys(values, "default")
    for key, value in {**METHOD_DEFAULTS[method], "run.method": method}.items():
        values[key] = value
        origins[key] = f"default for {method}"
    for origin, layer in layers:
        for key, value in _checked(upgraded(layer, origin), origin, method).items():
            section = key.partition(".")[0]
            if section not in wanted:
                if origin == SET:
                    belongs = ", ".join(METHODS_WITH.get(section, (section,)))
                    raise ConfigError(f"{SET}: {key} belongs to {belongs}, but this is a run of {method}. Remove it")
                continue
            if key == "run.method" and value != method:
                raise ConfigError(
                    f'{origin}: [run] method = "{value}", but this is a run of {method}. Remove the key, or train '
                    f"{value}"
                )
            values[key] = value
            origins[key] = origin
    sections = {s: SECTIONS[s](**{f.name: values[f"{s}.{f.name}"] for f in fields(SECTIONS[s])}) for s in wanted}
    config = RunConfig(**sections)
    if together and (found := together_fault(config)) is not None:
        key, fault = found
        section, _, name = key.partition(".")
        value = shown(values[key])
        raise ConfigError(f"{origins[key]}: [{section}] {name} = {value}: {fault}")
    return Resolved(config, origins)


def parse_set(text: str, method: str | None = None) -> dict[str, dict[str, Any]]:
    """The layer that one `--set KEY=VALUE` means.

    VALUE is TOML, or a bare word, which is a text; for a key that holds text it is always the text itself, and for one
    that holds several texts, these with commas between. KEY is
    section.name, or the name alone where only one section (of those that `method` uses) has it.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key:
        raise ConfigError(f"{SET} {text}: expected KEY=VALUE, for example {SET} optim.lr=3e-4")
    section, name = _place(key, sections_of(method) if method else list(SECTIONS))
    kind = str(_field(section, name).type)
    if kind == "tuple[str, ...]" and not value.startswith("["):
        return {section: {name: [part.strip() for part in value.split(",") if part.strip()]}}
    return {section: {name: _toml_value(value, as_text=kind == "str")}}


def upgraded(layer: dict[str, Any], origin: str) -> dict[str, Any]:
    """`layer` without its schema number, in the present form; a newer one is refused."""
    schema = layer.get("schema", SCHEMA)
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise ConfigError(f"{origin}: schema = {shown(schema)}: must be a whole number from 1 to {SCHEMA}")
    if schema > SCHEMA:
        raise ConfigError(
            f"{origin}: schema = {schema}, but this program knows schemas up to {SCHEMA}: the file is from a newer "
            "version. Update the program to read it"
        )
    return {key: value for key, value in layer.items() if key != "schema"}


def _checked(layer: dict[str, Any], origin: str, method: str) -> dict[str, Any]:
    """Every value of a layer as "section.name" -> value of the right type. Raises ConfigError."""
    out: dict[str, Any] = {}
    for section, content in layer.items():
        if section not in SECTIONS:
            raise ConfigError(
                f"{origin}: there is no section [{section}]{_nearest(section, SECTIONS)}. {_remove(origin)}"
            )
        if not isinstance(content, dict):
            raise ConfigError(
                f"{origin}: {section} = {shown(content)}: {section} is a section; write [{section}] above its keys"
            )
        known = {f.name: f for f in fields(SECTIONS[section])}
        for name, value in content.items():
            if name not in known:
                raise ConfigError(
                    f"{origin}: [{section}] has no key {name}{_nearest_key(section, name)}. {_remove(origin)}"
                )
            out[f"{section}.{name}"] = _checked_value(section, known[name], value, origin, method)
    return out


def _checked_value(section: str, key: Field[Any], value: Any, origin: str, method: str) -> Any:
    kind, bounds = str(key.type), key.metadata.get("bounds", Bounds())
    fault: str | None
    if kind in _LISTS:
        of = _LISTS[kind]
        value = tuple(_as_number(item, of) for item in value) if isinstance(value, list | tuple) else value
        fits = isinstance(value, tuple) and all(_is(item, of) for item in value)
        faults = [_fault(item, bounds) for item in value] if fits else [f"must be {_LIST_WORDS[of]}"]
        fault = next(filter(None, faults), None)
    else:
        value = _as_number(value, _TYPES[kind])
        fault = _fault(value, bounds) if _is(value, _TYPES[kind]) else f"must be {_WORDS[_TYPES[kind]]}"
    if fault is None:
        return value
    default = METHOD_DEFAULTS[method].get(f"{section}.{key.name}", key.default)
    usual = f", or remove it to use {shown(default)}" if default not in ("", ()) else ""
    remedy = "Give another value" if origin == SET else f"Edit the key{usual}"
    raise ConfigError(f"{origin}: [{section}] {key.name} = {shown(value)}: {fault}. {remedy}")


def _as_number(value: Any, kind: type) -> Any:
    """A whole number where any number is wanted, as a float; everything else as it is."""
    return float(value) if kind is float and isinstance(value, int) and not isinstance(value, bool) else value


def _is(value: Any, kind: type) -> bool:
    """Whether a value is of a type; true and false are no whole numbers."""
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _fault(value: Any, bounds: Bounds) -> str | None:
    """What is wrong with a value of the right type."""
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    return bounds.fault(value)


def _place(key: str, sections: Sequence[str]) -> tuple[str, str]:
    """(section, name) of a key as a person types it."""
    if "." in key:
        section, _, name = key.partition(".")
        if section not in SECTIONS:
            raise ConfigError(f"{SET} {key}: there is no section {section}{_nearest(section, SECTIONS)}")
        if name not in {f.name for f in fields(SECTIONS[section])}:
            raise ConfigError(f"{SET} {key}: [{section}] has no key {name}{_nearest_key(section, name)}")
        return section, name
    holders = [s for s in sections if key in {f.name for f in fields(SECTIONS[s])}]
    if len(holders) == 1:
        return holders[0], key
    if holders:
        raise ConfigError(f"{SET} {key}: could be {' or '.join(f'{s}.{key}' for s in holders)}. Write one of them")
    raise ConfigError(f"{SET} {key}: there is no such key{_nearest_key('', key)}")


def _field(section: str, name: str) -> Field[Any]:
    return next(f for f in fields(SECTIONS[section]) if f.name == name)


def _toml_value(text: str, *, as_text: bool) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"] if len(parsed) == 1 else text
    return text if as_text and not isinstance(value, str) else value


def _all_keys() -> list[str]:
    return [f"{s}.{f.name}" for s, section in SECTIONS.items() for f in fields(section)]


def _nearest_key(section: str, name: str) -> str:
    """A name that other programs use; else the nearest one of this section; else that name elsewhere; else any."""
    if name in _ELSEWHERE:
        return f" (did you mean {_ELSEWHERE[name]}?)"
    if near := section and _nearest(name, [f.name for f in fields(SECTIONS[section])]):
        return near
    elsewhere = [key for key in _all_keys() if key.partition(".")[2] == name]
    return f" (did you mean {elsewhere[0]}?)" if elsewhere else _nearest(f"{section}.{name}".lstrip("."), _all_keys())


def _nearest(word: str, known: Any) -> str:
    """The words "did you mean", or nothing where no known word is near. A name alone is compared with names alone."""
    names = {key.rpartition(".")[2] if "." not in word else key: key for key in reversed(list(known))}
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f" (did you mean {names[near[0]]}?)" if near else ""


def _remove(origin: str) -> str:
    return "Remove it or correct its name" if origin != SET else "Correct its name"


def shown(value: Any) -> str:
    """A value as it stands in TOML, cut where it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
