"""Reading a file of pairs with known answers, to be mixed into a pair set unseen.

Owns what such a file must be: of shape preference, whose chosen answer is the known one. Invariant: a row that cannot
be used refuses the file, because a wrong answer key would blame the annotators.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from workbench.dataset_intake import convert, first_events
from workbench.dataset_reading import RawRejection, RawRow, place_word, read_rows, recognise_file
from workbench.dataset_shapes import recognise
from workbench.errors import UnreadableData, UsageError
from workbench.pair_sets import CandidatePair, candidate


def read_calibration(file: Path) -> Iterator[CandidatePair]:
    """The pairs of a file of prompt, chosen and rejected. Raises UsageError or UnreadableData, naming the row."""
    kind = recognise_file(file)
    events = read_rows(file, kind)
    first = first_events(events)
    sample = [event.value for event in first if isinstance(event, RawRow)]
    if not sample:
        raise UnreadableData(f"--calibration {file}: has no row that can be read. Give prompt, chosen and rejected.")
    recognition = recognise(sample)
    if recognition.shape != "preference":
        raise UsageError(
            f"--calibration {file}: its rows have the shape {recognition.shape}; known answers are pairs of shape "
            "preference (prompt, chosen, rejected), where chosen is the right answer."
        )
    for row in convert(chain(first, events), recognition, file.name):
        if isinstance(row, RawRejection):
            raise UnreadableData(
                f"--calibration {file}, {place_word(kind)} {row.number}: {row.reason} {row.detail}".rstrip()
                + ". Every row is an answer key: mend it or take it out."
            )
        yield candidate(row)
