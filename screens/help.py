"""The page behind `?`: what a person does on a screen, and every key that works there.

Owns the page's form. The keys come from the bindings that are active now, rebound ones as they are, so that the page
cannot differ from the truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from screens.key_line import is_typed_into, key_name, shown_keys
from screens.modals import Reading
from screens.text_view import Block

if TYPE_CHECKING:
    from textual.screen import Screen

KEY_CELLS = 18
HIDDEN = ("nothing", "app.focus_next", "app.focus_previous", "screen.copy_text", "help_quit", "quit")
"""Actions of Textual's own that need no line."""


def help_page(screen: Screen[Any]) -> Reading:
    """The help of one screen."""
    title = str(getattr(screen, "TITLE", "") or "keys")
    blocks = [Block(title, "title"), Block("")]
    if words := getattr(screen, "help_words", "") or getattr(screen, "HELP", ""):
        blocks += [Block(words), Block("")]
    blocks.append(Block("keys", "title"))
    if is_typed_into(screen.focused):
        blocks.append(
            Block("A text is being typed: letters and signs go into it; esc, enter, tab and ctrl work.", "faint")
        )
    blocks += [Block(line) for line in _key_lines(screen)]
    blocks += [
        Block(""),
        Block("The word in brackets is the binding's id: [keys] in config.toml gives it other keys.", "faint"),
    ]
    return Reading(blocks)


def _key_lines(screen: Screen[Any]) -> list[str]:
    """A line for each action: the screen's own keys, those of every screen, then those of what has the focus."""
    keys: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    own = tuple(f"{part}." for part in (getattr(screen, "NAME", ""),) if part)
    for active in sorted(
        screen.active_bindings.values(),
        key=lambda active: (not (active.binding.id or "").startswith(own), active.node is not screen),
    ):
        binding = active.binding
        if binding.action in HIDDEN or binding.action.startswith("scroll_") or not binding.tooltip:
            continue
        keys.setdefault(binding.action, []).append(key_name(binding.key))
        said[binding.action] = binding.tooltip + (f" [{binding.id}]" if binding.id else "")
    lines = [f"{' '.join(names):<{KEY_CELLS}} {said[action]}" for action, names in keys.items()]
    enter = [f"{key:<{KEY_CELLS}} {words} [{name}]" for name, key, words in shown_keys(screen) if key == "enter"]
    return enter + lines
