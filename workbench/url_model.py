"""A model behind an OpenAI-compatible URL: how it is written, and whose key it is asked with.

    url:http://127.0.0.1:8000/v1#NAME        NAME as the server calls the model

Owns the spelling and where the key comes from: an environment variable, which the person's settings name for the URL or
for its host. Invariant: a key is never part of a URL, and never of a message. Nothing is asked here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from workbench.errors import UsageError, WorkbenchError
from workbench.model_names import ResolvedModel, resolve_model
from workbench.user_settings import read_settings
from workbench.workspace import Workspace

URL = "url:"
"""What such a model begins with."""
_SPELLING = "expected url:http://HOST[:PORT]/v1#NAME, with the model's name behind #"
_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class UrlModel:
    """A model that a server holds: it answers, and nothing else can be done with it."""

    url: str
    """Up to /v1, without a slash at its end."""
    name: str
    """As the server calls it."""

    @property
    def source(self) -> str:
        """As it is written after --model."""
        return f"{URL}{self.url}#{self.name}"

    @property
    def sha256(self) -> str:
        """Nothing is known of its weights."""
        return ""

    @property
    def is_reward_model(self) -> bool:
        """It writes answers."""
        return False


AnsweringModel = ResolvedModel | UrlModel
"""What prompts can be put to."""


def answering_model(workspace: Workspace | None, written: str, *, quiet: bool = False) -> AnsweringModel:
    """The model that `written` means, to be asked. Raises as `resolve_model` does."""
    return read_url(written) if written.startswith(URL) else resolve_model(workspace, written, quiet=quiet)


def read_url(written: str) -> UrlModel:
    """Raises UsageError where this is no URL of a model; its message holds nothing of a user or a password."""
    url, _, name = written.removeprefix(URL).partition("#")
    try:
        found = urlsplit(url)
        host, _ = found.hostname, found.port
    except ValueError as error:
        raise UsageError(f"{URL}…: {_SPELLING}") from error
    if found.username is not None or found.password is not None or found.query:
        raise UsageError(
            f"{URL}{found.scheme}://…{host or ''}: a URL holds no user, password, key or query, because it is written "
            "into files. Name the environment variable of a key in your settings, under [url_keys]."
        )
    if found.scheme not in ("http", "https") or not host or not name.strip() or not url.isprintable() or " " in url:
        raise UsageError(f"{written[:120]}: {_SPELLING}")
    return UrlModel(url.rstrip("/"), name.strip())


def key_of(model: UrlModel, named: Mapping[str, str] | None = None) -> str:
    """The key to ask with; empty where the settings name none. WorkbenchError where the variable has none.

    `named` maps a URL or its host[:port] to the name of an environment variable; None: the person's settings.
    """
    named = read_settings().url_keys if named is None else named
    variables = {url.rstrip("/"): variable for url, variable in named.items()}
    variable = variables.get(model.url) or variables.get(urlsplit(model.url).netloc)
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise WorkbenchError(
            f"{model.url}: the environment variable that [url_keys] of your settings names for it is not set here. "
            "Set it, or take the line out where the server needs no key."
        )
    if not _KEY.fullmatch(key):
        raise WorkbenchError(f"{model.url}: its key has a blank or a character that no header takes. Set it anew.")
    return key
