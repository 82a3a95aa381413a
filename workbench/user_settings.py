"""A person's own settings: theme, keys, the name they annotate under.

Owns $XDG_CONFIG_HOME/workbench/config.toml, which belongs to the person: it is read, and written only where they change
a setting in the app. A damaged file is an error that names it; a setting it does not know is told, and left alone.

    theme = "workbench-light"
    annotator = "alice"
    [keys]
    "label.tie" = "x"        # binding ids are listed by `?`
    [curves]
    ppo = ["objective/kl", "-grad_norm"]    # panels in this order, the second hidden
    [url_keys]
    "https://host/v1" = "MY_KEY"    # the environment variable with the key of that server; never the key itself
"""

from __future__ import annotations

import getpass
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import tomli_w

from engine.run.durable_files import write_atomically
from workbench.errors import WorkbenchError, explain_os_errors

SETTINGS = ("theme", "annotator", "keys", "curves", "url_keys")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class UserSettings:
    """What a person set; defaults where they set nothing."""

    theme: str = ""
    annotator: str = ""
    """Empty means `default_annotator`."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Binding id → keys, separated by commas."""
    curves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Method → panels of Curves in their order; see `workbench.panel_choice`."""
    url_keys: Mapping[str, str] = field(default_factory=dict)
    """URL of a server of models, or its host → the environment variable that holds its key."""
    problems: tuple[str, ...] = ()
    """What the file names that is no setting, a sentence each."""

    @property
    def annotator_name(self) -> str:
        """The name under which verdicts are kept."""
        return self.annotator or default_annotator()


def settings_path() -> Path:
    """Where the settings lie, whether or not there are any."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "workbench" / "config.toml"


def read_settings(path: Path | None = None) -> UserSettings:
    """The person's settings; WorkbenchError where the file is damaged."""
    path = path or settings_path()
    content = _read(path)
    theme, annotator, keys = content.get("theme", ""), content.get("annotator", ""), content.get("keys", {})
    if not isinstance(theme, str) or not isinstance(annotator, str):
        raise WorkbenchError(f"{path}: theme and annotator must be texts. Edit them, or remove them.")
    if not isinstance(keys, dict) or not all(isinstance(value, str) for value in keys.values()):
        raise WorkbenchError(f'{path}: [keys] must give each binding its keys as a text: "label.tie" = "x".')
    panels = content.get("curves", {})
    if not isinstance(panels, dict) or not all(map(_are_names, panels.values())):
        raise WorkbenchError(f'{path}: [curves] must give each method its panels as a list: ppo = ["objective/kl"].')
    orders = {method: tuple(names) for method, names in panels.items()}
    url_keys = content.get("url_keys", {})
    if not isinstance(url_keys, dict) or not all(
        isinstance(value, str) and _VARIABLE.fullmatch(value) for value in url_keys.values()
    ):
        # What stands there may be a key: it is not told.
        raise WorkbenchError(
            f"{path}: [url_keys] must give each URL the name of an environment variable, and never a key: "
            '"http://127.0.0.1:8000/v1" = "MY_KEY".'
        )
    return UserSettings(theme, annotator, dict(keys), orders, dict(url_keys), tuple(_unknown(content)))


def change_panels(method: str, names: Sequence[str], path: Path | None = None) -> None:
    """Write which panels of Curves are shown for a method; none forgets what was written."""
    path = path or settings_path()
    panels = dict(read_settings(path).curves)
    panels.pop(method, None)
    orders = {one: list(theirs) for one, theirs in panels.items()}
    change_setting("curves", orders | ({method: list(names)} if names else {}), path)


def change_setting(name: str, value: str | Mapping[str, Any], path: Path | None = None) -> None:
    """Write one setting; the others stay as they are (comments are not kept)."""
    path = path or settings_path()
    content = _read(path) | {name: value}
    with explain_os_errors("writing your settings", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, tomli_w.dumps(content).encode())


def default_annotator() -> str:
    """A name made of the account's, with what a name may hold."""
    try:
        account = getpass.getuser()
    except (OSError, KeyError):
        account = ""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", account).strip("-._")[:64].replace("..", ".") or "me"


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _unknown(content: Mapping[str, Any]) -> Iterator[str]:
    for name in content:
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(SETTINGS)}."
            yield f"no setting is called {name!r}{meant}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkbenchError(f"{path}: not readable as TOML ({error}). Mend it, or remove it.") from error
    except OSError as error:
        raise WorkbenchError(f"{path}: cannot be read ({error.strerror}).") from error
