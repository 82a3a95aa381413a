"""Texts that do harm where they reach a terminal raw, and how one sees whether any did.

Owns the payloads, a place-marked text that carries all of them, and `check_unharmed`. A canary (Zq and two digits)
stands next to the first control of each text, so that its being on the screen proves that the text was shown.
"""

from __future__ import annotations

import re

from engine.run.safe_text import safe
from tests.screens.pty_terminal import PtyTerminal, tokens

PAYLOADS = {
    "title": "\x1b]0;9753\x07",
    "clear": "\x1b[2J",
    "clipboard": "\x1b]52;c;OTc1Mw==\x07",
    "link": "\x1b]8;;http://9753.invalid\x1b\\",
    "style": "\x1b[9753m",
    "cursor": "\x1b[9753;9753H",
    "mode": "\x1b[?9753h",
    "device": "\x1bP+q9753\x1b\\",
    "C1 CSI": "\u009b2J",
    "C1 OSC": "\u009d0;9753\u009c",
    "bell": "\x07",
    "nul": "\x00",
    "overwrite": "\x08\x08\r",
    "charset": "\x0e\x0f",
    "delete": "\x7f",
    "bidi": "\u202e\u2066",
    "zero width": "\u200b\u2060\ufeff\u00ad",
    "tags": "\U000e0041\U000e0042",
    "separators": "\u2028\u2029\u0085",
    "markup": "[/nope]",
    "colour markup": "[red]9753[/red]",
    "action markup": "[@click=app.exit]9753[/]",
    "rich markup": "[link=http://9753.invalid]9753",
}
_NAMES = tuple(PAYLOADS)
_RAW = [payload for name, payload in PAYLOADS.items() if "markup" not in name and len(payload) > 3]
"""Payloads longer than one control; a control by itself is nothing the grammar knows."""
CANARY = re.compile(r"Zq\d\d")
SHOWN = re.compile(r"Zq\d\d(?:[\u2400-\u2421]|<U\+|\[/nope|\[red|\[@click|\[link=)")
"""A canary and the beginning of what makes its payload visible."""


class Corpus:
    """Hands out a text for each place; every place begins with another payload, and carries all."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def said(self, place: str) -> str:
        """The text for a place, always the same."""
        number = self.places.setdefault(place, len(self.places))
        turned = _NAMES[number % len(_NAMES) :] + _NAMES[: number % len(_NAMES)]
        return f"Zq{number:02d}" + "".join(PAYLOADS[name] for name in turned)

    def shown_places(self, text: str) -> set[str]:
        """The places whose canary is in `text`."""
        numbers = {int(found[2:]) for found in CANARY.findall(text)}
        return {place for place, number in self.places.items() if number in numbers}


def check_unharmed(terminal: PtyTerminal, where: str) -> None:
    """AssertionError where the app ended, or anything of a payload reached the terminal as more than visible text."""
    assert terminal.process.poll() is None, f"{where}: the app ended\n{terminal.text}\n{terminal.received[-2000:]!r}"
    assert terminal.foreign == [], where
    sent = terminal.received.decode("utf-8")
    for payload in _RAW:
        assert payload not in sent, f"{where}: raw {payload!r}"
    for token in tokens(sent):
        if token.kind == "text":
            assert safe(token.text) == token.text, f"{where}: {token.text!r}"
