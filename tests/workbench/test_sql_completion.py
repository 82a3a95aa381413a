"""What tab offers for a word of a query."""

from __future__ import annotations

import pytest

from workbench.sql_completion import complete
from workbench.sql_views import SqlView, quoted_name

VIEWS = (
    SqlView("runs", ("id", "state", "step"), "a run"),
    SqlView("judgments", ("pair", "verdict"), "a line"),
    SqlView("datasets.support-v2", ("prompt", "answer of 2024"), "a row", short=True),
    SqlView("datasets.runs", ("prompt",), "a row"),
)


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        ("FROM ru", ("runs", "datasets.runs")),
        ("FROM ", ("runs", "judgments", '"support-v2"', "datasets.runs")),
        ("FROM supp", ('"support-v2"',)),
        ('FROM "supp', ('"support-v2"',)),
        ("FROM datasets.ru", ("datasets.runs",)),
        ("SELECT st| FROM runs", ("state", "step")),
        ("SELECT r.st| FROM runs r", ("state", "step")),
        ('SELECT t.ans| FROM "support-v2" AS t', ('"answer of 2024"',)),
        ("SELECT verd| FROM judgments", ("verdict",)),
        ("sel", ("SELECT",)),
        ("FROM runs WHERE zz", ()),
        ("", ()),
    ],
)
def test_offers(typed: str, offers: tuple[str, ...]) -> None:
    text = typed.replace("|", "")
    found = complete(text, typed.index("|") if "|" in typed else len(text), VIEWS)
    assert found.offers == offers
    for offer in offers:
        assert offer.startswith(found.common)


def test_a_name_is_quoted_where_it_must_be() -> None:
    assert [quoted_name(name) for name in ("runs", "Runs", "a b", '"; drop table')] == [
        "runs", '"Runs"', '"a b"', '"""; drop table"',
    ]  # fmt: skip
