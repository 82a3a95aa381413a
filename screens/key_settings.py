"""A person's own keys: what `[keys]` of config.toml may name, and what is wrong with what it names.

Owns the reading of that table. A name that no binding has, a key that no keyboard sends and a key that another binding
of the same screen has are told; what is right is bound all the same. The names are gathered from the classes, so that
this cannot differ from the screens; that imports every screen, so it is asked only where a person set a key.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module

from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import Keys

import screens
from screens.key_line import key_name

_MODIFIERS = ("ctrl", "alt", "shift", "super", "hyper", "meta")
_NAMED = {key.value for key in Keys}
_SIGNS = [Binding(sign, "x") for sign in map(chr, range(33, 127)) if sign != ","]
_NAMED |= {binding.key for binding in Binding.make_bindings(_SIGNS)}


def keymap_of(keys: Mapping[str, str]) -> dict[str, str]:
    """`[keys]` as Textual wants it: a sign by its name ("?" is question_mark), no blanks, empty ones left out."""
    return {name: ",".join(split) for name, text in keys.items() if (split := _split(text))}


def problems_of(keys: Mapping[str, str]) -> list[str]:
    """What is wrong with `[keys]`, a sentence each."""
    classes = list(_classes())
    names = {binding.id for one in classes for _, binding in one._merge_bindings() if binding.id}
    found = []
    for name, text in keys.items():
        if name not in names:
            near = get_close_matches(name, names, 1)
            meant = f"; did you mean {near[0]}?" if near else "; ? says the names."
            found.append(f"[keys] no binding is called {name!r}{meant}")
            continue
        unknown = [key for key in _split(text) if not _is_key(key)]
        if unknown or not _split(text):
            what = f"{unknown[0]!r} is no key" if unknown else "no key is given"
            found.append(f"[keys] {name} = {text!r}: {what}. Such are t, T, ?, ctrl+t, enter, pagedown.")
    return found + _clashes(classes, keymap_of(keys))


def _clashes(classes: list[type[DOMNode]], keymap: dict[str, str]) -> list[str]:
    """A key that one screen would have twice: Textual gives it to the binding of the table, and the other has none."""
    found: dict[str, None] = {}
    for one in classes:
        bindings = [binding for _, binding in one._merge_bindings() if binding.id]
        apart: tuple[frozenset[str], ...] = getattr(one, "NEVER_TOGETHER", ())
        for name, keys in keymap.items():
            if not any(binding.id == name for binding in bindings):
                continue
            mine = [group for group in apart if name in group]
            for binding in bindings:
                if mine and any(binding.id in group for group in apart if group not in mine):
                    continue
                if binding.id != name and binding.id not in keymap and binding.key in keys.split(","):
                    found[f"[keys] {name} takes {key_name(binding.key)} from {binding.id}; give that one another."] = (
                        None
                    )
    return list(found)


def _split(text: str) -> list[str]:
    """The keys of a text, each as Textual calls it."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [one.key for one in Binding.make_bindings([Binding(part, "x") for part in parts])]


def _is_key(key: str) -> bool:
    *modifiers, last = key.split("+")
    return all(one in _MODIFIERS for one in modifiers) and (len(last) == 1 or last in _NAMED)


def _classes() -> Iterator[type[DOMNode]]:
    """Every screen and widget of ours that binds keys."""
    for module in pkgutil.iter_modules(screens.__path__, "screens."):
        for thing in vars(import_module(module.name)).values():
            if isinstance(thing, type) and issubclass(thing, DOMNode) and thing.__module__ == module.name:
                yield thing
