"""Preference sets: judged pairs frozen into training and held-out rows by an explicit rule.

Owns prefs/NAME/: train.jsonl and eval.jsonl (preference rows of `canonical_rows`) and prefs.toml (every source with its
hash, the rule, and what became of every pair). Invariants: a preference set is never edited, and is refused where its
content is not what was frozen; rows of one prompt are all on one side; the same sources and rule give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from workbench.canonical_rows import Completion, PreferenceRow, completion_for, is_held_out
from workbench.dataset_source import sha256_of
from workbench.errors import SourceChanged, UnreadableData, UsageError, WorkbenchError
from workbench.judgments import Fold
from workbench.pair_sets import Pair, PairKind, PairSet, open_pairs
from workbench.preference_rule import CAUSES, FreezeRule, FrozenPair, VerdictsOfPair, decide, rows_of, verdicts_by_pair
from workbench.row_conversion import same_answer
from workbench.steps import Progress, Steps
from workbench.workspace import Workspace, now, read_toml, write_toml

SCHEMA = 1
Side = Literal["train", "eval"]
SIDES: tuple[Side, Side] = ("train", "eval")
WRITTEN, ADJUDICATED = "written", "adjudicated"
"""The tag of a row whose chosen answer an annotator wrote."""
_MOST_FAULTS_NAMED = 100


@dataclass(frozen=True)
class PreferenceInfo:
    """What prefs.toml says."""

    created: str
    rule: FreezeRule
    sources: list[dict[str, Any]]
    """Each pair set: name, sha256 of its pairs, and of every journal as it was read, with the lines used."""
    counts: dict[str, int]
    """What became of every pair: train and eval rows, then pairs without a row by cause."""
    content_sha256: str
    """Of both files together; two sets with this hash are the same set."""
    files: dict[str, str]
    """File name → sha256."""
    origins: dict[str, int] = field(default_factory=dict)
    """Verdicts by origin; "rule" is synthetic, and is called so wherever it is shown."""
    written: int = 0
    """Pairs whose chosen answer an annotator wrote."""
    adjudicated: int = 0
    """Pairs on which a third voice stood for votes that differed."""
    note: str = ""


@dataclass(frozen=True)
class PreferenceSet:
    """One frozen preference set."""

    workspace: Workspace
    name: str
    info: PreferenceInfo

    @property
    def folder(self) -> Path:
        return self.workspace.prefs / self.name

    def path(self, side: Side, progress: Progress | None = None) -> Path:
        """train.jsonl or eval.jsonl, proved to be what was frozen; `progress` counts its bytes."""
        path = self.folder / f"{side}.jsonl"
        if not path.is_file():
            raise UnreadableData(f"preference set {self.name}: {path} is missing. Restore it from a copy.")
        actual, frozen = sha256_of(path, progress), self.info.files[path.name]
        if actual != frozen:
            raise SourceChanged(
                f"preference set {self.name}: {path} was edited after it was frozen (sha256 now {actual}, "
                f"frozen {frozen}). Restore it, or freeze the pairs again under a new name."
            )
        return path

    def rows(self, side: Side) -> Iterator[PreferenceRow]:
        """The rows of one side, in frozen order."""
        with open(self.path(side), "rb") as file:
            for line in file:
                yield orjson.loads(line)

    def verify(self, progress: Progress | None = None) -> None:
        """Raises where either file is not what was frozen; `progress` counts the bytes of each."""
        for side in SIDES:
            self.path(side, progress)


def freeze(
    workspace: Workspace,
    pair_sets: str | Sequence[str],
    name: str,
    rule: FreezeRule | None = None,
    *,
    kind: PairKind = "pairs",
    progress: Progress | None = None,
) -> PreferenceSet:
    """Freezes the verdicts that now hold on one or more pair sets into the new preference set `name`.

    Raises UsageError where the rule leaves no row, saying what became of the pairs. `progress` counts pairs, twice
    each: when the rule is asked, and when its row is written. Where it raises, nothing is left.
    """
    rule = rule or FreezeRule()
    names = [pair_sets] if isinstance(pair_sets, str) else list(pair_sets)
    if not names or len(set(names)) != len(names):
        raise UsageError("name each pair set once.")
    opened = [open_pairs(workspace, n, kind) for n in names]
    steps = Steps(2 * sum(one.info.rows for one in opened), progress)
    readings = [_Reading(one, one.judgments(), steps) for one in opened]
    _check_annotators(rule, names, readings)
    with workspace.new_folder("prefs", name) as folder:
        counts = dict.fromkeys((*SIDES, *CAUSES, "identical", "conflicts", WRITTEN, ADJUDICATED), 0)
        origins: Counter[str] = Counter()
        groups = {row["group"] for reading in readings for row in reading.rows(rule, counts, origins)}
        if not groups:
            del counts[WRITTEN], counts[ADJUDICATED]
            raise _nothing_to_freeze(names, readings, counts)
        files = _write_sides(folder, readings, rule, _held_out_groups(groups, rule), counts)
        content = {
            "schema": SCHEMA,
            "name": name,
            "created": now(),
            "note": "; ".join(sorted({reading.pair_set.info.note for reading in readings} - {""})),
            "content_sha256": hashlib.sha256("".join(files.values()).encode()).hexdigest(),
            "rule": rule.to_toml(),
            "written": counts.pop(WRITTEN),
            "adjudicated": counts.pop(ADJUDICATED),
            "counts": counts,
            "origins": dict(origins),
            "files": files,
            "sources": [reading.source() for reading in readings],
        }
        write_toml(folder / "prefs.toml", content)
    return open_preference_set(workspace, name)


def open_preference_set(workspace: Workspace, name: str) -> PreferenceSet:
    """A preference set by its name; its files are verified when they are read."""
    where = workspace.existing("prefs", name) / "prefs.toml"
    content = read_toml(where)
    if content.get("schema", 0) > SCHEMA:
        raise WorkbenchError(
            f"{where}: format version {content['schema']}; this program reads up to {SCHEMA}. Update it."
        )
    try:
        rule = FreezeRule.from_toml(content["rule"])
        known = PreferenceInfo.__dataclass_fields__.keys() - {"rule"}
        return PreferenceSet(
            workspace, name, PreferenceInfo(rule=rule, **{key: content[key] for key in known if key in content})
        )
    except (KeyError, TypeError) as error:
        raise WorkbenchError(f"{where}: damaged ({error}). Restore it from a copy.") from error


def list_preference_sets(workspace: Workspace) -> tuple[list[PreferenceSet], list[str]]:
    """All preference sets, and a message for each that cannot be opened."""
    found: list[PreferenceSet] = []
    problems: list[str] = []
    for name in workspace.names("prefs"):
        try:
            found.append(open_preference_set(workspace, name))
        except WorkbenchError as error:
            problems.append(str(error))
    return found, problems


@dataclass(frozen=True)
class _Reading:
    """One pair set with its journals as they were read once; what is frozen is exactly this."""

    pair_set: PairSet
    said: Fold
    steps: Steps

    def rows(self, rule: FreezeRule, counts: dict[str, int], origins: Counter[str]) -> Iterator[PreferenceRow]:
        """The rows that the rule makes of the pairs; counts what becomes of each pair, and the origins of verdicts."""
        verdicts = verdicts_by_pair(self.said, rule)
        has_strengths = rule.margins == "strength" and self.pair_set.form.most > 1
        for pair in self.steps.over(self.pair_set.pairs()):
            of_pair = verdicts.get(pair.id, VerdictsOfPair())
            outcome = decide(of_pair, rule)
            counts["conflicts"] += bool(of_pair.conflicts)
            counts[ADJUDICATED] += of_pair.is_adjudicated
            made = list(_distinct(pair, rows_of(outcome, of_pair, has_strengths=has_strengths)))
            if not made:
                counts[outcome.cause or "identical"] += 1
                continue
            origins.update(of_pair.origins)
            counts[WRITTEN] += made[0].is_written
            for number, row in enumerate(made):
                yield {
                    "id": f"{self.pair_set.name}:{pair.id}" + (f":{number}" if len(made) > 1 else ""),
                    "prompt": pair.prompt,
                    "chosen": row.chosen,
                    "rejected": row.rejected,
                    "weight": row.weight,
                    "margin": row.margin,
                    "group": pair.group,
                    "tags": {**pair.tags, WRITTEN: True} if row.is_written else pair.tags,
                }

    def source(self) -> dict[str, Any]:
        """What was read, for prefs.toml."""
        read = self.said.journals.items()
        return {
            "kind": self.pair_set.kind,
            "name": self.pair_set.name,
            "pairs": self.pair_set.info.rows,
            "sha256": self.pair_set.info.sha256,
            "candidates": self.pair_set.info.source,
            "faults": [str(fault) for fault in self.said.faults[:_MOST_FAULTS_NAMED]],
            "journals": [{"file": journal, "sha256": sha256, "lines": used} for journal, (sha256, used) in read],
        }


class _Row(NamedTuple):
    chosen: Completion
    rejected: Completion
    weight: float
    margin: float | None
    is_written: bool


def _distinct(pair: Pair, rows: Iterable[FrozenPair]) -> Iterator[_Row]:
    """The rows with their answers, but for those whose two answers are the same."""
    answers = {"a": pair.a, "b": pair.b}
    for row in rows:
        chosen = completion_for(pair.prompt, row.chosen) if row.written else answers[row.chosen]
        if not same_answer(chosen, answers[row.rejected]):
            yield _Row(chosen, answers[row.rejected], row.weight, row.margin, row.written)


def _nothing_to_freeze(names: Sequence[str], readings: Sequence[_Reading], counts: dict[str, int]) -> UsageError:
    """What became of the pairs, and what could be done."""
    words = {**{cause: cause.replace("_", " ") for cause in counts}, "ties": "tie" if counts["ties"] == 1 else "ties"}
    told = ", ".join(f"{count} {words[cause]}" for cause, count in counts.items() if count) or "no pairs"
    criteria = list(dict.fromkeys(one.name for r in readings for one in r.pair_set.form.criteria))
    which = (
        f" Its questions are {', '.join(criteria)}: --criterion NAME, or NAME:WEIGHT,NAME:WEIGHT." if criteria else ""
    )
    who = sorted({showing.annotator for reading in readings for showing in reading.said.current})
    several = f" Several annotators judged ({', '.join(who[:6])}); --annotators WHO counts only theirs."
    return UsageError(
        f"nothing to freeze from {', '.join(names)}: {told}. Judge pairs first, or relax the rule."
        + which
        + (several if len(who) > 1 else "")
    )


def _check_annotators(rule: FreezeRule, names: Sequence[str], readings: Sequence[_Reading]) -> None:
    """Raises UsageError for a name under which nobody judged: a typing error would leave verdicts out unseen."""
    there = {one.annotator for reading in readings for one in (*reading.said.current, *reading.said.conflicts)}
    if unknown := [who for who in rule.annotators if who not in there]:
        known = ", ".join(sorted(there)) or "nobody"
        raise UsageError(
            f"--annotators {', '.join(unknown)}: no such name judged {', '.join(names)}. Verdicts are there of {known}."
        )


def _write_sides(
    folder: Path, readings: Sequence[_Reading], rule: FreezeRule, held_out: set[str], counts: dict[str, int]
) -> dict[str, str]:
    """Writes both files row by row, counts their rows, and returns their hashes."""
    paths: dict[Side, Path] = {side: folder / f"{side}.jsonl" for side in SIDES}
    already_counted = Counter[str]()
    with open(paths["train"], "wb") as train, open(paths["eval"], "wb") as held:
        for reading in readings:
            for row in reading.rows(rule, already_counted, Counter()):
                side: Side = "eval" if row["group"] in held_out else "train"
                (held if side == "eval" else train).write(orjson.dumps(row) + b"\n")
                counts[side] += 1
    return {path.name: sha256_of(path) for path in paths.values()}


def _held_out_groups(all_groups: Iterable[str], rule: FreezeRule) -> set[str]:
    """The groups on the held-out side: those whose hash is below the share, so that a group keeps its side later.

    Where chance leaves one side of a small set empty, the group nearest to the border changes sides.
    """
    groups = sorted(all_groups, key=lambda group: hashlib.sha256(f"{rule.seed}\x1f{group}".encode()).digest())
    if rule.eval_share <= 0 or len(groups) < 2:
        return set()
    held_out = {group for group in groups if is_held_out(group, rule.seed, rule.eval_share)}
    if not held_out:
        return {groups[0]}
    return held_out - {groups[-1]} if len(held_out) == len(groups) else held_out
