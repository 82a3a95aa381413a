"""What was rendered and encoded of one row, remembered so that it is done once.

A mask is proved from many beginnings of one conversation, several proofs ask for the same ones, and both answers of a
pair ask for their prompt. Owns what is remembered and for how long: inside `of_one_row`, whose row nothing may change
meanwhile. Outside, every question is worked out anew. Knows nothing of templates and tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Renderings:
    """The memory of one tokenizer, and of those that are made of it."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Any, Any]] | None = None

    @contextmanager
    def of_one_row(self) -> Iterator[None]:
        """Remember until the block ends."""
        self._known = {}
        try:
            yield
        finally:
            self._known = None

    def once(self, key: Hashable, alive: Any, make: Callable[[], T]) -> T:
        """`make()`, or what it was under this key. Objects whose `id` is in the key are in `alive`, which is kept: so
        no other object has their `id` while they are remembered."""
        if self._known is None:
            return make()
        if key not in self._known:
            self._known[key] = (make(), alive)
        value: T = self._known[key][0]
        return value
