"""The last line: which keys do what here.

Owns the choice of what fits. The keys of the focused widget's screen come in the order they were bound; where there is
no room the later ones are left to `?`, which is always named, as is the way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from textual.app import App
from textual.binding import Binding
from textual.events import Resize
from textual.widgets import Static

from engine.run.safe_text import safe
from screens.line import Part, content_of
from screens.row_list import RowList

if TYPE_CHECKING:
    from textual.screen import Screen
    from textual.widget import Widget

GAP = 2
ALWAYS = ("help", "back")
"""Ids of the bindings that are never left out."""
_NAMES = {
    "question_mark": "?", "slash": "/", "colon": ":", "escape": "esc", "left_square_bracket": "[",
    "right_square_bracket": "]", "enter": "enter", "space": "space", "full_stop": ".", "comma": ",", "plus": "+",
    "minus": "-", "underscore": "_", "equals_sign": "=", "less_than_sign": "<", "greater_than_sign": ">",
}  # fmt: skip


def key_name(key: str) -> str:
    """How a key is called on the screen: ?, esc, ctrl+d, G."""
    return _NAMES.get(key, key)


def is_typed_into(focused: Widget | None) -> bool:
    """Whether letters go into what has the focus."""
    return focused is not None and focused.check_consume_key("a", "a")


def shown_keys(screen: Screen[Any]) -> list[tuple[str, str, str]]:
    """(id, key, what it does) of the bindings that a screen shows now, in order, each action once."""
    found: dict[str, tuple[str, str, str]] = {}
    typing = is_typed_into(screen.focused)
    for active in screen.active_bindings.values():
        binding = active.binding
        if typing and (len(binding.key) == 1 or len(key_name(binding.key)) == 1):
            continue  # it would be typed
        if binding.show and active.enabled and binding.description and binding.action not in found:
            key = (not typing and binding.key_display) or key_name(binding.key)
            found[binding.action] = (binding.id or "", key, binding.description)
    own = _own_enter(screen)
    later: tuple[str, ...] = getattr(screen, "LATER_KEYS", ())
    # The way to everything comes after the screen's own keys.
    return sorted([*own, *found.values()], key=lambda one: (one[0] == "palette", one[0] in later))


def _own_enter(screen: Screen[Any]) -> list[tuple[str, str, str]]:
    """What Enter does here by the screen's word: a list that has the focus takes the key, and tells the screen."""
    return [
        (binding.id or "", "enter", binding.description)
        for binding in type(screen).BINDINGS
        if isinstance(binding, Binding) and binding.key == "enter" and binding.show
        if isinstance(screen.focused, RowList)
    ]


class KeyLine(Static):
    """The keys of the screen it is on, as many as fit."""

    DEFAULT_CSS = """
    KeyLine { height: 1; dock: bottom; background: $surface; text-wrap: nowrap; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__("", id=id, markup=False)
        self._shown: tuple[Part, ...] = ()

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._again)
        self.call_after_refresh(self._again)

    def on_resize(self, event: Resize) -> None:
        self._again()

    def _again(self, _: object = None) -> None:
        if not self.is_attached or not isinstance(self.app, App) or self.screen not in self.app.screen_stack:
            return  # a screen that was left may lack the widgets its keys ask for
        keys = shown_keys(self.screen)
        always = [one for one in keys if one[0] in ALWAYS]
        room = self.size.width - 1 - sum(_width(one) for one in always)
        parts: list[Part] = [" "]
        for one in [key for key in keys if key[0] not in ALWAYS]:
            room -= _width(one)
            if room < 0:
                break
            parts += _parts(one)
        for one in always:
            parts += _parts(one)
        if tuple(parts) != self._shown:
            self._shown = tuple(parts)
            self.update(content_of(*parts), layout=False)


def _width(one: tuple[str, str, str]) -> int:
    return cell_len(safe(one[1])) + 1 + cell_len(safe(one[2])) + GAP


def _parts(one: tuple[str, str, str]) -> list[Part]:
    return [(one[1], "bold $accent"), f" {one[2]}" + " " * GAP]
