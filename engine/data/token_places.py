"""Where the tokens of a completion end in its text.

Owns the rule. Invariants: the ends never go back and the last is the length of the text; a token that is part of a
character, or that is not shown, ends where the one before it ends or where the character does. Where a tokenizer writes
a token otherwise beside others than alone, and the completion is long, there is no answer rather than a slow one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

LONGEST_BY_PREFIXES = 256
"""Tokens up to which each beginning of the completion is decoded, which costs the square of their number."""


def token_ends(decode: Callable[[Sequence[int]], str], ids: Sequence[int], text: str) -> list[int] | None:
    """For each token the number of characters of `text` up to its end; None where that would take long to find.

    `text` is what `decode` makes of all `ids`.
    """
    pieces = {one: decode([one]) for one in set(ids)}
    ends, end = [], 0
    for one in ids:
        end += len(pieces[one])
        ends.append(end)
    if "".join(pieces[one] for one in ids) == text:
        return ends
    if len(ids) > LONGEST_BY_PREFIXES:
        return None
    ends, end = [], 0
    for count in range(1, len(ids) + 1):
        end = max(end, _shared(decode(ids[:count]), text))
        ends.append(end)
    return ends


def _shared(beginning: str, text: str) -> int:
    """Characters that two texts share from their beginning: half a character at the end of one is none."""
    if text.startswith(beginning):
        return len(beginning)
    return next((place for place, (one, two) in enumerate(zip(beginning, text, strict=False)) if one != two), 0)
