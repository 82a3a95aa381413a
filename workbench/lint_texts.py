"""What is wrong with one row by itself: characters, secrets, addresses, and turns in an order that no template expects.

Pure functions of texts and turns. What looks like a secret is never quoted, only named. The forms of keys are those
that their issuers document; a password that looks like a word cannot be told from one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_HARMFUL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufffd\U000e0000-\U000e007f]"
)
"""C0 but tab and line ends, DEL, C1, direction marks, zero-width space and joiner, BOM, the mark of damage, tags."""
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})\b")
_RESERVED = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|org|net))?|test|invalid|localhost)$", re.IGNORECASE)
"""Domains that belong to nobody (RFC 2606)."""
_SECRETS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    # (what it is, a text that it always holds, its form)
    ("private key", "PRIVATE KEY-----", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")),
    ("AWS key", "AKIA", re.compile(r"\bAKIA(?![0-9A-Z]{0,12}EXAMPLE)[0-9A-Z]{16}\b")),
    *(("GitHub token", f"gh{kind}_", re.compile(rf"\bgh{kind}_[A-Za-z0-9]{{36,}}\b")) for kind in "oprsu"),
    ("GitHub token", "github_pat_", re.compile(r"\bgithub_pat_[A-Za-z0-9_]{50,}\b")),
    ("GitLab token", "glpat-", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    ("API key", "sk-", re.compile(r"\bsk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{32,}")),
    ("Hugging Face token", "hf_", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    ("Google key", "AIza", re.compile(r"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])")),
    ("Slack token", "xox", re.compile(r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}")),
    ("Stripe key", "k_live_", re.compile(r"\b[rs]k_live_[0-9A-Za-z]{16,}\b")),
    ("signed token", ".eyJ", re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")),
    (
        "password in an address",
        "://",
        re.compile(
            r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:(?!(?:pass\w*|pwd|secret|\*+|x+)@|[<{$%\[])[^\s/:@]{3,64}@"
            r"(?![\w.-]*\bexample\b)[\w.-]+",
            re.IGNORECASE,
        ),
    ),
)


def texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Every text of a canonical row that a model would read, calls and thoughts among them."""
    for name in ("text", "prompt", "messages", "completion", "chosen", "rejected", "a", "b"):
        yield from _texts_in(row.get(name))


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != "role":
                yield from _texts_in(item)


def harmful_characters(texts: Iterable[str]) -> str:
    """The control and invisible characters in some texts, by name; empty where there are none."""
    found: dict[str, None] = {}
    for text in texts:
        if not text.isascii() or not text.isprintable():
            found.update(dict.fromkeys(_HARMFUL.findall(text)))
    return ", ".join(_name_of(letter) for letter in found)


def _name_of(letter: str) -> str:
    name = unicodedata.name(letter, "")
    return f"U+{ord(letter):04X}" + (f" {name.lower()}" if name else "")


def secrets_in(texts: Iterable[str]) -> str:
    """What kinds of keys seem to stand in some texts; never the keys."""
    found: dict[str, None] = {}
    for text in texts:
        for what, mark, form in _SECRETS:
            if mark in text and form.search(text):
                found[what] = None
    return ", ".join(found)


def addresses_in(texts: Iterable[str]) -> int:
    """How many e-mail addresses stand in some texts, those of reserved domains aside."""
    return sum(
        1 for text in texts if "@" in text for found in _ADDRESS.finditer(text) if not _RESERVED.search(found[1])
    )


def broken_order(row: Mapping[str, Any]) -> str:
    """Why the turns of a canonical row are in no order that chat templates expect; empty where they are."""
    if "messages" in row:
        turns = row["messages"]
        return _order_of(turns) or ("it ends with no assistant turn" if turns[-1]["role"] != "assistant" else "")
    prompt = row.get("prompt")
    if not isinstance(prompt, list):
        return ""
    answers = [row[name] for name in ("completion", "chosen", "rejected", "a", "b") if isinstance(row.get(name), list)]
    return next((why for answer in answers or [[]] if (why := _order_of([*prompt, *answer]))), "")


def _order_of(turns: Sequence[Mapping[str, Any]]) -> str:
    roles = [str(turn["role"]) for turn in turns]
    spoken = [role for role in roles if role != "system"]
    if "system" in roles[1:]:
        return "a system turn after the first turn"
    if spoken and spoken[0] != "user":
        return f"the first turn is {spoken[0]}, not user"
    for before, role, turn in zip(spoken, spoken[1:], _not_system(turns), strict=False):
        if role == before and role != "tool":
            return f"two {role} turns in a row"
        if role == "tool" and before != "tool" and not turn.get("tool_calls"):
            return "a tool turn that answers no call"
    return ""


def _not_system(turns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [turn for turn in turns if turn["role"] != "system"]
