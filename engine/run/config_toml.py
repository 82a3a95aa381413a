"""run.toml: a RunConfig as a file that a person can read, edit and use as a recipe.

Owns the file's form. Invariant: reading what was written gives an equal config. Refuses to check values: that is
`engine.run.config_layers`.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.run.config import RunConfig, sections_of
from engine.run.config_layers import resolve
from engine.run.config_schema import SCHEMA
from engine.run.durable_files import disk_faults_named


def to_toml(config: RunConfig) -> str:
    """The whole config, every default written out; sections of other methods are left out."""
    import tomli_w

    values = asdict(config)
    wanted = sections_of(config.run.method)
    plain = {s: {k: list(v) if isinstance(v, tuple) else v for k, v in values[s].items()} for s in wanted}
    return tomli_w.dumps({"schema": SCHEMA, **plain})


def from_toml(text: str, where: str) -> RunConfig:
    """The config in `text`; `where` names the file in errors. Keys that an older program did not know get defaults."""
    layer = read_layer(text, where)
    run = layer.get("run")
    method = run.get("method") if isinstance(run, dict) else None
    if not isinstance(method, str):
        raise ConfigError(f'{where}: [run] method is missing: it says what is trained, for example method = "sft"')
    return resolve(method, [(where, layer)]).config


def read_layer(text: str, where: str) -> dict[str, Any]:
    """A recipe (a partial run.toml) as a layer for `resolve`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not readable as TOML: {error}. Correct the file") from error


def read_config(path: Path) -> RunConfig:
    """The config of a run folder. Raises ConfigError for what it says, RunFolderError where it cannot be read."""
    return from_toml(_text_of(path), path.name)


def read_recipe(path: Path) -> dict[str, Any]:
    """The layer in a recipe file."""
    return read_layer(_text_of(path), str(path))


def _text_of(path: Path) -> str:
    with disk_faults_named("reading a config", path):
        content = path.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}): this is no TOML file") from error
