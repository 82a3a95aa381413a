"""Pair sets: two answers to each of many prompts, waiting for verdicts or holding them.

Owns pairs/NAME/ (and arena/NAME/, which has the same shape): pairs.parquet, written once and checked against its hash
when it is read, pairs.toml, and where the judgments lie. Invariant: which answer is column a is a seeded draw by the
pair's content, so that neither "chosen" nor any model is always a. Verdicts that came with the data are written into a
journal of the annotator "imported" before the set becomes visible.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import orjson

from workbench import duckdb_connection
from workbench.canonical_rows import Completion, Prompt, Tags, from_json, group_of, to_json
from workbench.dataset_source import sha256_of
from workbench.dataset_store import Dataset
from workbench.errors import SourceChanged, UnreadableData, UsageError, WorkbenchError
from workbench.judgments import Fold, Journal, Verdict, read_judgments
from workbench.label_form import LabelForm
from workbench.pair_sharing import Sharing
from workbench.pair_status import PairStatus, status_of
from workbench.row_conversion import same_answer
from workbench.steps import Progress, Steps
from workbench.workspace import Kind, Workspace, now, read_toml, write_toml

SCHEMA = 1
IMPORTED = "imported"
"""The annotator under whose name verdicts that came with the data are kept."""
Imported = Literal["", "a", "b", "tie"]
PairKind = Literal["pairs", "arena"]
COLUMNS = dict.fromkeys(
    ("id", "prompt", "a", "b", "group", "source_a", "source_b", "imported", "tags"),
    "VARCHAR",
)


@dataclass(frozen=True)
class CandidatePair:
    """Two answers to one prompt, before the draw that decides which of them is a."""

    prompt: Prompt
    a: Completion
    b: Completion
    source_a: str = ""
    """Where the answer comes from: a model, "chosen", a file; hidden from annotators."""
    source_b: str = ""
    imported: Imported = ""
    """The verdict that came with the pair; empty for none."""
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True)
class Pair(CandidatePair):
    """One pair of a set."""

    id: str = ""
    """16 hex digits of its content, so that making the set again gives the same ids."""
    group: str = ""
    """Equal for pairs with the same prompt; they are never split."""


@dataclass(frozen=True)
class PairSetInfo:
    """What pairs.toml says."""

    created: str
    source: dict[str, Any]
    """Where the candidates came from: dataset and hash, or models and sampling."""
    scale: str
    rows: int
    sha256: str
    """Of pairs.parquet."""
    seed: int
    """Of the draw that decides which answer is a."""
    identical_left_out: int
    """Pairs whose two answers were the same and which are not in the set."""
    note: str = ""
    verdicts_left_out: int = 0
    """Verdicts that came with the data and say which answer is better, where the set asks other questions."""
    tags: list[str] = field(default_factory=list)
    """Reasons that an annotator is offered."""
    criteria: list[dict[str, str]] = field(default_factory=list)
    """Questions, by name and as they are asked; none: one question."""
    guidelines: str = ""
    sharing: dict[str, Any] = field(default_factory=dict)
    """How it is shared out among annotators; see `PairSet.sharing`."""


@dataclass(frozen=True)
class PairSet:
    """One pair set of a workspace."""

    workspace: Workspace
    name: str
    kind: PairKind
    info: PairSetInfo

    @property
    def folder(self) -> Path:
        return self.workspace.folder(self.kind) / self.name

    @cached_property
    def form(self) -> LabelForm:
        """What is asked about each pair; WorkbenchError where pairs.toml declares what cannot be asked."""
        try:
            return LabelForm.from_toml(self.info.__dict__)
        except (UsageError, TypeError, AttributeError) as error:
            raise WorkbenchError(f"{self.folder / 'pairs.toml'}: {error}") from error

    @property
    def parquet_path(self) -> Path:
        return self.folder / "pairs.parquet"

    @property
    def judgments_folder(self) -> Path:
        return self.folder / "judgments"

    @property
    def sharing(self) -> Sharing:
        """How it is shared out among annotators; the default for a set that says nothing."""
        try:
            return Sharing.from_toml(self.info.sharing)
        except (TypeError, UsageError) as error:
            raise WorkbenchError(f"{self.folder / 'pairs.toml'}: [sharing]: {error}") from error

    def pairs(self) -> Iterator[Pair]:
        """All pairs in the order of the set; SourceChanged where pairs.parquet is not the one that was made."""
        return self._read(self.parquet_path, self.info.sha256)

    def calibration(self) -> Iterator[Pair]:
        """The pairs with known answers (in `imported`) that are mixed in; they are no pairs of the set."""
        if self.sharing.calibration_pairs:
            yield from self._read(self.folder / "calibration.parquet", self.sharing.calibration_sha256)

    def _read(self, path: Path, sha256: str) -> Iterator[Pair]:
        import duckdb

        if not path.is_file():
            raise UnreadableData(f"pair set {self.name}: {path} is missing. Restore it from a copy.")
        actual = sha256_of(path)
        if actual != sha256:
            raise SourceChanged(
                f"pair set {self.name}: {path} is not the file that was made (sha256 now {actual}, "
                f"recorded {sha256}). Judgments refer to its pairs: restore it from a copy."
            )
        try:
            for row in duckdb_connection.read_parquet(path, list(COLUMNS)):
                yield _from_columns(row)
        except duckdb.Error as error:
            raise UnreadableData(f"{path}: {str(error).splitlines()[0]}") from error

    def pair(self, pair_id: str) -> Pair:
        """One pair by its id or a unique beginning of it."""
        found = [pair for pair in self.pairs() if pair.id.startswith(pair_id)] if pair_id else []
        exact = [pair for pair in found if pair.id == pair_id] or found
        if len(exact) != 1:
            number = "no pair" if not exact else f"{len(exact)} pairs"
            listed = ", ".join(pair.id for pair in exact[:8]) + (" …" if len(exact) > 8 else "")
            raise UsageError(
                f"pair set {self.name} has {number} whose id begins with {pair_id[:40]!r}"
                + (f": {listed}." if exact else ".")
            )
        return exact[0]

    def judgments(self) -> Fold:
        """What the journals say now."""
        return read_judgments(self.judgments_folder)

    def journal(self, annotator: str, *, fresh: bool = False) -> Journal:
        """A journal to append this annotator's verdicts to; use it as a context manager."""
        self.workspace.require_writable()
        return Journal(self.judgments_folder, annotator, fresh=fresh)

    def status(self) -> PairStatus:
        """Counts over all pairs and journals."""
        return status_of({pair.id for pair in self.pairs()}, self.judgments())


def create_pairs(
    workspace: Workspace,
    name: str,
    rows: Iterable[CandidatePair],
    source: Mapping[str, Any],
    *,
    kind: PairKind = "pairs",
    seed: int = 0,
    note: str = "",
    form: LabelForm | None = None,
    steps: Steps | None = None,
    sharing: Sharing | None = None,
    calibration: Iterable[CandidatePair] = (),
) -> PairSet:
    """Makes a pair set of candidate answers. `source` says where they came from and is written into pairs.toml.

    Pairs with two equal answers are left out and counted. A verdict that came with a pair follows its answer through
    the draw and becomes a judgment of the annotator "imported"; where the set asks other questions than which is
    better, it answers none of them and is left out and counted. Each row is one of the `steps`; where they
    raise, nothing is left. Each pair of `calibration` has its known answer in `imported`.
    """
    left_out = [0]
    steps = steps or Steps(0)
    with workspace.new_folder(cast(Kind, kind), name) as folder:
        imported: list[Pair] = []
        made = _draw_pairs(steps.over(rows), seed, left_out, imported)
        count = duckdb_connection.write_parquet(folder / "pairs.parquet", map(_to_columns, made), COLUMNS)
        if count == 0:
            raise UnreadableData(
                f"no pairs for {name}: " + ("all answers are equal." if left_out[0] else "there were no candidates.")
            )
        form = form or LabelForm()
        kept = imported if form.asks_overall else []
        _write_imported(folder / "judgments", kept)
        shared = _with_calibration(folder, sharing or Sharing(), calibration, seed)
        content = {
            "schema": SCHEMA,
            "name": name,
            "created": now(),
            "note": note,
            **form.to_toml(),
            "rows": count,
            "sha256": sha256_of(folder / "pairs.parquet"),
            "seed": seed,
            "identical_left_out": left_out[0],
            "verdicts_left_out": len(imported) - len(kept),
            "source": dict(source),
            "sharing": shared.to_toml(),
        }
        write_toml(folder / "pairs.toml", content)
        steps.add(0)  # the last moment in which the person may have had enough
    return open_pairs(workspace, name, kind)


def pairs_from_dataset(
    workspace: Workspace,
    name: str,
    dataset: Dataset,
    *,
    seed: int = 0,
    form: LabelForm | None = None,
    progress: Progress | None = None,
    sharing: Sharing | None = None,
    calibration: Iterable[CandidatePair] = (),
) -> PairSet:
    """A pair set of a dataset of shape preference (its verdicts are imported) or answers (there are none).

    `progress` counts the rows of the dataset, and may raise: then nothing is left.
    """
    if dataset.shape not in ("preference", "answers"):
        raise UsageError(
            f"dataset {dataset.name} has the shape {dataset.shape}; pairs are made from preference or answers, or from "
            "the answers of models (pairs make NAME --prompts DATASET --model M)."
        )
    source = {"dataset": dataset.name, "sha256": dataset.info.source.sha256, "origin": dataset.info.source.origin}
    steps = Steps(dataset.info.rows, progress)
    rows = map(candidate, dataset.rows())
    return create_pairs(
        workspace, name, rows, source, seed=seed, note=dataset.info.note, form=form, steps=steps, sharing=sharing,
        calibration=calibration,
    )  # fmt: skip


def open_pairs(workspace: Workspace, name: str, kind: PairKind = "pairs") -> PairSet:
    """A pair set by its name."""
    folder = workspace.existing(cast(Kind, kind), name)
    where = folder / "pairs.toml"
    content = read_toml(where)
    if content.get("schema", 0) > SCHEMA:
        raise WorkbenchError(
            f"{where}: format version {content['schema']}; this program reads up to {SCHEMA}. Update it."
        )
    try:
        known = PairSetInfo.__dataclass_fields__
        return PairSet(workspace, name, kind, PairSetInfo(**{key: content[key] for key in known if key in content}))
    except TypeError as error:
        raise WorkbenchError(f"{where}: damaged ({error}). Restore it from a copy.") from error


def list_pairs(workspace: Workspace, kind: PairKind = "pairs") -> tuple[list[PairSet], list[str]]:
    """All pair sets, and a message for each that cannot be opened."""
    found: list[PairSet] = []
    problems: list[str] = []
    for name in workspace.names(cast(Kind, kind)):
        try:
            found.append(open_pairs(workspace, name, kind))
        except WorkbenchError as error:
            problems.append(str(error))
    return found, problems


def candidate(row: Mapping[str, Any]) -> CandidatePair:
    """The two answers of a row of shape preference (with its verdict) or answers (without)."""
    if row.get("tools"):
        raise UsageError(
            f"row {row['id']} has definitions of tools, which a pair set does not keep: without them its prompt would "
            "be another one. Train on the dataset itself: workbench train dpo --data DATASET"
        )
    if "chosen" in row:
        return CandidatePair(row["prompt"], row["chosen"], row["rejected"], "chosen", "rejected", "a", row["tags"])
    return CandidatePair(row["prompt"], row["a"], row["b"], "a", "b", "", row["tags"])


def _draw_pairs(rows: Iterable[CandidatePair], seed: int, left_out: list[int], imported: list[Pair]) -> Iterator[Pair]:
    """Pairs with their ids, a and b drawn by a hash of seed and content; those with a verdict also go to `imported`."""
    seen: Counter[str] = Counter()
    for row in rows:
        if same_answer(row.a, row.b):
            left_out[0] += 1
            continue
        content = _content_hash(row)
        seen[content] += 1
        identity = hashlib.sha256(f"{content}\x1f{seen[content]}".encode()).hexdigest()[:16]
        swap = hashlib.sha256(f"{seed}\x1f{identity}".encode()).digest()[0] & 1
        pair = _swapped(row) if (to_json(row.a) > to_json(row.b)) != bool(swap) else row
        made = Pair(**{**pair.__dict__, "id": identity, "group": group_of(row.prompt)})
        if made.imported:
            imported.append(replace(made, prompt="", a="", b=""))
        yield made


def _content_hash(row: CandidatePair) -> str:
    """Equal for the same prompt with the same two answers, in whatever order they come."""
    answers = sorted([to_json(row.a), to_json(row.b)])
    return hashlib.sha256(orjson.dumps([row.prompt, *answers])).hexdigest()


def _swapped(row: CandidatePair) -> CandidatePair:
    verdict: dict[Imported, Imported] = {"a": "b", "b": "a", "tie": "tie", "": ""}
    tags = {_SWAPPED_TAGS.get(key, key): value for key, value in row.tags.items()}
    return CandidatePair(row.prompt, row.b, row.a, row.source_b, row.source_a, verdict[row.imported], tags)


_SWAPPED_TAGS = {"stopped_a": "stopped_b", "stopped_b": "stopped_a"}
"""Tags that belong to one of the answers, and follow it through the draw."""


def _write_imported(folder: Path, pairs: list[Pair]) -> None:
    folder.mkdir(mode=0o700)
    if not pairs:
        return
    with Journal(folder, IMPORTED) as journal:
        journal.append_many(journal.prepare(pair.id, cast(Verdict, pair.imported), origin="imported") for pair in pairs)


def _with_calibration(folder: Path, sharing: Sharing, rows: Iterable[CandidatePair], seed: int) -> Sharing:
    """Writes calibration.parquet, if there are such pairs; their ids are never those of pairs of the set."""
    drawn = _draw_pairs(rows, seed, [0], [])
    known = [
        replace(pair, id=hashlib.sha256(f"calibration\x1f{pair.id}".encode()).hexdigest()[:16])
        for pair in drawn
        if pair.imported
    ]
    if not known:
        return sharing
    path = folder / "calibration.parquet"
    count = duckdb_connection.write_parquet(path, map(_to_columns, known), COLUMNS)
    return replace(sharing, calibration_pairs=count, calibration_sha256=sha256_of(path))


def _to_columns(pair: Pair) -> dict[str, str]:
    return {
        "id": pair.id,
        "prompt": to_json(pair.prompt),
        "a": to_json(pair.a),
        "b": to_json(pair.b),
        "group": pair.group,
        "source_a": pair.source_a,
        "source_b": pair.source_b,
        "imported": pair.imported,
        "tags": to_json(pair.tags),
    }


def _from_columns(row: Mapping[str, Any]) -> Pair:
    decoded = {name: from_json(row[name]) for name in ("prompt", "a", "b", "tags")}
    return Pair(**{**row, **decoded})
