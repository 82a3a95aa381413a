"""The datasets of a workspace: adding, listing, opening, reading and verifying them.

Owns datasets/NAME/: dataset.toml (what was seen and decided), rejected.jsonl (rows that cannot be used, with their
line and reason) and, for copies and Hub datasets, the file itself. Invariants: a dataset is added whole or not at all;
a later read gives the rows that were counted, because the file is verified and the recognition is stored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from workbench import steps
from workbench.canonical_rows import CanonicalRow, PromptRow, Shape, prompts_of
from workbench.dataset_files import files_of_pattern, join_files
from workbench.dataset_intake import Progress, convert, read_and_count
from workbench.dataset_reading import RawRejection, read_rows, recognise_file
from workbench.dataset_shapes import Recognition
from workbench.dataset_source import DatasetSource, copy_bytes, record_source
from workbench.errors import UsageError, WorkbenchError
from workbench.workspace import Workspace, check_name, now, read_toml, write_toml

SCHEMA = 1


@dataclass(frozen=True)
class DatasetInfo:
    """What dataset.toml says."""

    name: str
    created: str
    recognition: Recognition
    source: DatasetSource
    rows: int
    """Usable rows: what Dataset.rows() yields."""
    columns: dict[str, list[str]] = field(default_factory=dict)
    """What each column of the first rows holds, in words. Names are text from strangers."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Reason → how many rows; the rows themselves are in rejected.jsonl, up to dataset_intake.MAX_REJECTIONS_KEPT."""
    note: str = ""
    """What a person must know wherever the dataset is shown, such as "synthetic"."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """How it was made of other datasets (`made_dataset.Recipe`); empty for one that was added."""


@dataclass(frozen=True)
class Rejection:
    """One row that is not used."""

    place: str
    """Where it stands in the file: "line 12" or "row 12"."""
    reason: str
    detail: str
    excerpt: str


@dataclass(frozen=True)
class Dataset:
    """One dataset of a workspace."""

    workspace: Workspace
    name: str
    info: DatasetInfo

    @property
    def shape(self) -> Shape:
        return self.info.recognition.shape

    @property
    def folder(self) -> Path:
        return self.workspace.datasets / self.name

    def rows(self) -> Iterator[CanonicalRow]:
        """The usable rows in the order of the file, after the file is proved to be the recorded one."""
        path = self.source_path()
        for event in convert(read_rows(path, self.info.source.file_kind), self.info.recognition, self.name):
            if not isinstance(event, RawRejection):
                yield event

    def prompts(self) -> Iterator[PromptRow]:
        """Each prompt once, whatever the shape; nothing for plain texts."""
        yield from prompts_of(self.rows())

    def rejected_rows(self) -> Iterator[Rejection]:
        """The rows that are not used, as far as they were kept."""
        path = self.folder / "rejected.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as file:
            for line in file:
                entry = orjson.loads(line)
                yield Rejection(entry["place"], entry["reason"], entry["detail"], entry["excerpt"])

    def source_path(self, always_hash: bool = False, progress: steps.Progress | None = None) -> Path:
        """The file the rows come from, verified; raises where it is gone or changed."""
        return self.info.source.verified_path(self.workspace, self.name, always_hash, progress)

    def verify(self, progress: steps.Progress | None = None) -> None:
        """Hashes the whole file again, and raises SourceChanged or UnreadableData where it is not the recorded one.

        `progress` counts bytes.
        """
        self.source_path(always_hash=True, progress=progress)


def add_dataset(
    workspace: Workspace,
    source: str | os.PathLike[str],
    name: str | None = None,
    mapping: Mapping[str, str] | None = None,
    *,
    copy: bool = False,
    origin: str = "",
    note: str = "",
    progress: Progress | None = None,
) -> Dataset:
    """Adds a file, all files of a pattern, a Hub dataset (hf:NAME[@REVISION][:CONFIG][:SPLIT]), an Arrow file or a
    folder saved by `datasets` (FOLDER[:SPLIT]).

    A file is referenced and hashed; with `copy` the workspace keeps its own copy. What comes through `datasets` or from
    Arrow is stored as Parquet in any case, several files as JSON lines. `origin` is what to call the source where its
    path means nothing to a person (a file made on the way). `progress` is called with the number of rows read so far;
    where it raises, nothing is left.
    """
    from workbench.hub_dataset import fetch, parse_source

    text = os.fspath(source)
    through_datasets = parse_source(text)
    if not through_datasets and Path(text).is_dir():
        recognise_file(Path(text))  # a folder in which `datasets` saved nothing: raises, before a name is asked for
    name = check_name(name or default_name(text), "dataset")
    with workspace.new_folder("datasets", name) as folder:
        if through_datasets:
            details = fetch(through_datasets, folder / "data.parquet")
            file, kind, named = folder / "data.parquet", through_datasets.kind, through_datasets.written
        elif several := files_of_pattern(text):
            details = join_files(several, folder / "data.jsonl")
            file, kind, named = folder / "data.jsonl", "files", _writable_path(text)
        else:
            details, named = {}, _writable_path(text)
            file, kind = Path(named), "reference"
        file_kind = recognise_file(file)
        if copy and kind == "reference":
            file = folder / ("original" + "".join(Path(text).suffixes[-2:])[:32])
            copy_bytes(Path(named), file)
            kind = "copy"
        inside = file.is_relative_to(folder)
        final = workspace.datasets / name / file.name if inside else file
        hashed = None if progress is None else lambda done, total: progress(0)
        recorded = record_source(file, workspace.relative(final), kind, origin or named, file_kind, details, hashed)
        intake = read_and_count(file, file_kind, name, mapping, folder / "rejected.jsonl", progress)
        info = DatasetInfo(
            name, now(), intake.recognition, recorded, intake.rows, intake.columns, intake.rejected, note
        )
        write_toml(folder / "dataset.toml", to_toml(info))
    return open_dataset(workspace, name)


def default_name(source: str) -> str:
    """The name a dataset gets when none is given: its file's name, or the Hub's, without endings and odd characters."""
    last = source.removeprefix("hf:").split(":")[0].rstrip("/").rsplit("/", 1)[-1]
    stem = re.sub(r"(\.(jsonl|ndjson|json|csv|tsv|parquet|txt|gz|gzip))+$", "", last, flags=re.IGNORECASE)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:64]
    if not name:
        raise UsageError(f"no dataset name can be made from {source[:80]!r}; give one with --name.")
    return name


def open_dataset(workspace: Workspace, name: str) -> Dataset:
    """A dataset by its name. Its file is verified when rows are read, not here."""
    folder = workspace.existing("datasets", name)
    return Dataset(workspace, name, _from_toml(read_toml(folder / "dataset.toml"), name, folder))


def list_datasets(workspace: Workspace) -> tuple[list[Dataset], list[str]]:
    """All datasets, and a message for each whose dataset.toml cannot be read."""
    found: list[Dataset] = []
    problems: list[str] = []
    for name in workspace.names("datasets"):
        try:
            found.append(open_dataset(workspace, name))
        except WorkbenchError as error:
            problems.append(str(error))
    return found, problems


def _writable_path(text: str) -> str:
    path = os.path.abspath(os.path.expanduser(text))
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the path {path!r} is not valid UTF-8 and cannot be recorded; rename the file.") from error
    return path


def to_toml(info: DatasetInfo) -> dict[str, Any]:
    """What dataset.toml holds."""
    return {
        "schema": SCHEMA,
        "name": info.name,
        "created": info.created,
        "note": info.note,
        "rows": info.rows,
        "recognition": asdict(info.recognition),
        "source": asdict(info.source),
        "columns": [{"name": name, "holds": kinds} for name, kinds in info.columns.items()],
        "rejected": [{"reason": reason, "rows": count} for reason, count in info.rejected.items()],
        **({"recipe": info.recipe} if info.recipe else {}),
    }


def _from_toml(content: dict[str, Any], name: str, folder: Path) -> DatasetInfo:
    where = folder / "dataset.toml"
    if content.get("schema", 0) > SCHEMA:
        raise WorkbenchError(
            f"{where}: format version {content['schema']}, and this program reads up to {SCHEMA}. Update the program."
        )
    try:
        recognition = {**content["recognition"], "json_columns": tuple(content["recognition"]["json_columns"])}
        return DatasetInfo(
            name=name,
            created=content["created"],
            recognition=Recognition(**recognition),
            source=DatasetSource(**content["source"]),
            rows=content["rows"],
            columns={entry["name"]: entry["holds"] for entry in content["columns"]},
            rejected={entry["reason"]: entry["rows"] for entry in content["rejected"]},
            note=content.get("note", ""),
            recipe=content.get("recipe", {}),
        )
    except (KeyError, TypeError) as error:
        raise WorkbenchError(
            f"{where}: damaged ({error}). Remove the folder {folder} and add the dataset again."
        ) from error
