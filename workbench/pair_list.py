"""The pair sets and arenas of a workspace as a list shows them, and which datasets pairs can be made of.

Owns the words of that list. Invariants: verdicts of the sample rule are called synthetic; a set that cannot be opened
is a problem with a message and hides nothing else; counts come from the journals and pairs.toml, so that no Parquet
file is opened to show a list.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from workbench.dataset_store import list_datasets
from workbench.errors import WorkbenchError
from workbench.file_signatures import signature_of
from workbench.judgments import Fold
from workbench.labeling_subject import ARENA, subject_of
from workbench.pair_sets import PairKind, PairSet, open_pairs
from workbench.pair_words import WORDS
from workbench.terminal_output import local_time
from workbench.workspace import Workspace

ORIGINS = {"rule": "rule (synthetic)", "imported": "came with the data", "typed": "typed", "screen": "by hand"}
PAIRED_SHAPES = ("preference", "answers")


@dataclass(frozen=True)
class ListedPairs:
    """One pair set or arena."""

    subject: str
    """NAME, or arena/NAME."""
    created: str
    pairs: int = 0
    mine: int = 0
    """Pairs this annotator has judged or skipped."""
    judged: int = 0
    """Pairs with a verdict of anyone but a skip."""
    open: int = 0
    """Pairs that nobody judged or skipped."""
    sources: str = ""
    made_from: str = ""
    details: tuple[tuple[str, str], ...] = ()
    problem: str = ""

    @property
    def is_arena(self) -> bool:
        return self.subject.startswith(ARENA)


class PairsReader:
    """Reads the list again and again; a set whose files are as they were is not read anew."""

    def __init__(self, workspace: Workspace, annotator: str) -> None:
        self._workspace, self._annotator = workspace, annotator
        self._known: dict[str, tuple[object, ListedPairs]] = {}

    def read(self) -> tuple[ListedPairs, ...]:
        """All pair sets, then all arenas, the newest first."""
        kinds: tuple[PairKind, ...] = ("pairs", "arena")
        found: list[ListedPairs] = []
        for kind in kinds:
            of_kind = [self._one(kind, name, subject_of(kind, name)) for name in self._workspace.names(kind)]
            found += sorted(of_kind, key=lambda one: one.created, reverse=True)
        self._known = {one.subject: self._known[one.subject] for one in found}
        return tuple(found)

    def _one(self, kind: PairKind, name: str, subject: str) -> ListedPairs:
        folder = self._workspace.folder(kind) / name
        files = signature_of([folder / "pairs.toml", *sorted((folder / "judgments").glob("*.jsonl"))])
        known = self._known.get(subject)
        if known is None or known[0] != files:
            known = self._known[subject] = (files, listed(self._workspace, kind, name, self._annotator))
        return known[1]


def listed(workspace: Workspace, kind: PairKind, name: str, annotator: str) -> ListedPairs:
    """One pair set as a list shows it; one that cannot be opened says why."""
    subject = subject_of(kind, name)
    try:
        pair_set = open_pairs(workspace, name, kind)
        said = pair_set.judgments()
    except (WorkbenchError, OSError) as error:
        return ListedPairs(subject, "", problem=str(error))
    judged, skipped = said.judged_pairs, said.skipped_pairs
    origins = Counter(one.origin for one in said.first)
    info = pair_set.info
    return ListedPairs(
        subject=subject,
        created=info.created,
        pairs=info.rows,
        mine=len({one.pair for one in said.first if one.annotator == annotator}),
        judged=len(judged),
        open=max(0, info.rows - len(judged) - len(skipped)),
        sources=", ".join(f"{ORIGINS.get(origin, origin)} {count:,}" for origin, count in origins.most_common()),
        made_from=_made_from(pair_set),
        details=_details(pair_set, said, len(skipped)),
    )


def datasets_to_pair(workspace: Workspace) -> list[tuple[str, str, int]]:
    """(name, shape, rows) of the datasets that a pair set can be made of."""
    return [(one.name, one.shape, one.info.rows) for one in list_datasets(workspace)[0] if one.shape in PAIRED_SHAPES]


def _details(pair_set: PairSet, said: Fold, skipped: int) -> tuple[tuple[str, str], ...]:
    verdicts = Counter(one.verdict for one in said.first)
    annotators = Counter(one.annotator for one in said.first)
    origins = Counter(one.origin for one in said.first)
    fields = {
        "made from": _made_from(pair_set),
        "verdicts": ", ".join(f"{count:,} {WORDS.get(v, v)}" for v, count in sorted(verdicts.items())),
        "from": ", ".join(f"{count:,} {ORIGINS.get(o, o)}" for o, count in sorted(origins.items())),
        "annotators": ", ".join(f"{who} {count:,}" for who, count in annotators.most_common()),
        "skipped": f"{skipped:,}" if skipped else "",
        "undone": f"{said.undone:,}" if said.undone else "",
        "conflicts": f"{len(said.conflicts):,}: two programs wrote under one name" if said.conflicts else "",
        "faults": "\n".join(map(str, said.faults[:10])),
        "left out": f"{pair_set.info.identical_left_out:,} with equal answers"
        if pair_set.info.identical_left_out
        else "",
        "made": local_time(pair_set.info.created),
        "note": pair_set.info.note,
    }
    return tuple((name, value) for name, value in fields.items() if value)


def _made_from(pair_set: PairSet) -> str:
    """The dataset; for an arena only how many models, because it is judged blind."""
    source = pair_set.info.source
    if "dataset" in source:
        return str(source["dataset"])
    prompts = source.get("prompts")
    name = str(prompts.get("dataset", "")) if isinstance(prompts, dict) else ""
    models = source.get("models")
    count = len(models) if isinstance(models, list) else 0
    return " · ".join(
        part for part in (f"{count} models" if count else "", f"prompts of {name}" if name else "") if part
    )
