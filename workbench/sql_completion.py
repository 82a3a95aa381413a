"""What a word of a query may become: names of views, columns of those it names, and the words of SQL.

Owns the choice. It looks at the text alone, so that completing never waits; a column is offered where its view stands
anywhere in the query, or where its name or alias is typed before the dot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.sql_views import SqlView, quoted_name

KEYWORDS = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "HAVING", "LIMIT", "JOIN", "LEFT JOIN", "USING", "ON", "AS",
    "AND", "OR", "NOT", "IN", "IS NULL", "LIKE", "ILIKE", "BETWEEN", "CASE", "WHEN", "THEN", "ELSE", "END", "DISTINCT",
    "count(*)", "sum(", "avg(", "min(", "max(", "median(", "quantile_cont(", "length(", "lower(", "contains(",
    "regexp_matches(", "unnest(", "SUMMARIZE", "DESCRIBE", "SHOW TABLES", "PIVOT", "UNION ALL", "WITH", "DESC", "ALL",
)  # fmt: skip
MOST_OFFERED = 50
_WORD = re.compile(r'(?:"[^"]*"?|[\w-]+|\.)+$')
_AFTER_FROM = re.compile(r"\b(from|join|describe|summarize|pivot|table)\s+$", re.IGNORECASE)
_ALIAS = re.compile(r'((?:"[^"]+"|[\w-]+)(?:\.(?:"[^"]+"|[\w-]+))?)\s+(?:as\s+)?([a-z_]\w*)', re.IGNORECASE)


@dataclass(frozen=True)
class Completion:
    """What may stand in the place of the word before the cursor."""

    start: int
    """Where the word begins."""
    offers: tuple[str, ...]
    """As they are typed, the nearest first."""

    @property
    def common(self) -> str:
        """What all offers begin with."""
        first, last = min(self.offers, default=""), max(self.offers, default="")
        same = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
        return first[: next(same, min(len(first), len(last)))]


def complete(text: str, cursor: int, views: Sequence[SqlView]) -> Completion:
    """The offers for the word that ends at `cursor`."""
    found = _WORD.search(text[:cursor])
    word = found[0] if found else ""
    start = cursor - len(word)
    before = text[:start]
    head, dot, tail = word.rpartition(".")
    if dot and (meant := _view_called(head, text, views)):
        return Completion(start + len(head) + 1, _beginning_with(tail, [quoted_name(name) for name in meant.columns]))
    tables = [_typed(view) for view in views]
    if _AFTER_FROM.search(before):
        return Completion(start, _beginning_with(word, tables))
    named = [view for view in views if view.last_part.lower() in text.lower()]
    columns = dict.fromkeys(quoted_name(name) for view in named for name in view.columns)
    return Completion(start, _beginning_with(word, [*columns, *tables, *KEYWORDS]) if word else ())


def _typed(view: SqlView) -> str:
    """The shortest name that means the view."""
    return quoted_name(view.last_part) if view.short else view.quoted


def _view_called(name: str, text: str, views: Sequence[SqlView]) -> SqlView | None:
    """The view of a name, or of an alias that the query gives."""
    wanted = _plain(name)
    aliases = {alias.lower(): _plain(table) for table, alias in _ALIAS.findall(text)}
    for called in (wanted, aliases.get(wanted, "")):
        for view in views:
            if called in (view.name.lower(), view.last_part.lower() if view.short else ""):
                return view
    return None


def _beginning_with(word: str, offers: Sequence[str]) -> tuple[str, ...]:
    wanted = _plain(word)
    first = [offer for offer in offers if _plain(offer).startswith(wanted) and offer != word]
    parts = [offer for offer in offers if offer not in first and _plain(offer).rpartition(".")[2].startswith(wanted)]
    return tuple(dict.fromkeys([*first, *(offer for offer in parts if wanted and offer != word)]))[:MOST_OFFERED]


def _plain(name: str) -> str:
    return name.replace('"', "").lower()
