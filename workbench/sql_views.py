"""What a query can name: a view for every dataset, pair set, arena and preference set, and tables of the loop itself.

Owns the names, their columns, and where each view's rows come from: files that are read as they lie, or rows that this
program works out (what verdict stands, which step counts) and that are written as JSON lines for the query. Invariants:
nothing is opened before a query names it; a name of the loop never means a dataset, which then has its full name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from workbench.dataset_reading import FileKind
from workbench.judgment_lines import Judgment
from workbench.workspace import KINDS, Kind, Workspace

Rows = Callable[[Workspace], Iterator[dict[str, Any]]]
LAST = "last"
"""The view of the result that was shown before, in the console."""
_ALL_NAMES = re.compile(r"\b(show|information_schema|duckdb_\w+|pragma_\w+|sqlite_master|pg_\w+)", re.IGNORECASE)
"""A query with one of these asks what there is."""


@dataclass(frozen=True)
class SqlView:
    """One name that a query may use."""

    name: str
    """As it is written in SQL without quotes: "runs", or "datasets.answers"."""
    columns: tuple[str, ...]
    """As far as they are known without reading; text from strangers."""
    words: str
    """What a row is."""
    files: tuple[Path, ...] = ()
    """The files that are read as they lie; none where `rows` makes them."""
    kind: FileKind | None = None
    rows: Rows | None = None
    types: tuple[str, ...] = ()
    """DuckDB's types of the columns, where `rows` makes them."""
    short: bool = False
    """Whether the part behind the dot alone means it, too."""

    @property
    def schema(self) -> str:
        """The part before the dot; "main" where there is none."""
        return self.name.partition(".")[0] if "." in self.name else "main"

    @property
    def last_part(self) -> str:
        """The part behind the dot."""
        return self.name.partition(".")[2] or self.name

    @property
    def quoted(self) -> str:
        """The name as it can be typed: what is no plain word in quotes."""
        return ".".join(quoted_name(part) for part in self.name.split(".", 1))


def quoted_name(name: str) -> str:
    """A name as one types it: in quotes where it is no plain word."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def sql_views(workspace: Workspace) -> tuple[tuple[SqlView, ...], tuple[str, ...]]:
    """Everything a query can name here, tables of the loop first; and a message for each thing that is damaged."""
    problems: list[str] = []
    found = [*_LOOP]
    taken = {view.name.lower() for view in found} | {LAST, *KINDS}
    for view in (*_datasets(workspace, problems), *_preference_sets(workspace), *_pair_sets(workspace)):
        if view.schema in ("datasets", "prefs") and view.last_part.lower() not in taken:
            taken.add(view.last_part.lower())
            view = SqlView(**{**view.__dict__, "short": True})
        found.append(view)
    return tuple(found), tuple(problems)


def named_in(query: str, views: tuple[SqlView, ...]) -> tuple[SqlView, ...]:
    """The views that `query` may mean: those whose name stands in it; all where it asks what there is."""
    if _ALL_NAMES.search(query):
        return views
    lowered = query.lower()
    return tuple(view for view in views if view.last_part.lower() in lowered)


def write_rows(view: SqlView, workspace: Workspace, path: Path) -> int:
    """Write the rows that this program makes for `view` as JSON lines; bytes of the longest line."""
    longest = 1
    assert view.rows is not None
    with open(path, "wb") as file:
        for row in view.rows(workspace):
            line = orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS) + b"\n"
            longest = max(longest, len(line) + 1)
            file.write(line)
    return longest


# The loop.


def _dataset_rows(workspace: Workspace) -> Iterator[dict[str, Any]]:
    from workbench.dataset_store import list_datasets

    for dataset in list_datasets(workspace)[0]:
        info, source = dataset.info, dataset.info.source
        yield {
            "name": dataset.name, "shape": dataset.shape, "rows": info.rows, "rejected": sum(info.rejected.values()),
            "origin": source.origin, "kind": source.kind, "path": source.path, "bytes": source.bytes,
            "sha256": source.sha256, "created": info.created, "note": info.note,
        }  # fmt: skip


def _preference_set_rows(workspace: Workspace) -> Iterator[dict[str, Any]]:
    from workbench.preferences import list_preference_sets

    for made in list_preference_sets(workspace)[0]:
        info = made.info
        yield {
            "name": made.name, "train": info.counts.get("train", 0), "eval": info.counts.get("eval", 0),
            "sources": [str(source.get("name", "")) for source in info.sources], "sha256": info.content_sha256,
            "created": info.created, "note": info.note,
        }  # fmt: skip


def _pair_set_rows(workspace: Workspace) -> Iterator[dict[str, Any]]:
    from workbench.pair_sets import list_pairs

    for kind in ("pairs", "arena"):
        for one in list_pairs(workspace, kind)[0]:
            info = one.info
            yield {
                "set": one.name, "kind": kind, "pairs": info.rows, "scale": info.scale, "sha256": info.sha256,
                "created": info.created, "note": info.note,
            }  # fmt: skip


def _judgment_rows(workspace: Workspace) -> Iterator[dict[str, Any]]:
    """Every line of every journal; `stands` where it is the verdict that holds for its showing."""
    from workbench.judgment_lines import read_journal
    from workbench.judgments import fold

    for kind in ("pairs", "arena"):
        for name in workspace.names(kind):
            folder = workspace.root / kind / name / "judgments"
            texts = [read_journal(path) for path in sorted(folder.glob("*.jsonl"))]
            standing = {one.id for one in fold(texts).current.values()}
            for text in texts:
                for _, one in text.lines:
                    yield {"set": name, "kind": kind, **one._asdict(), "stands": one.id in standing}


def _run_rows(workspace: Workspace) -> Iterator[dict[str, Any]]:
    from workbench.run_list import all_runs, summarise

    for run in all_runs(workspace):
        found = asdict(summarise(run))
        best = found.pop("best") or {}
        last = {name: str(value) for name, value in found.pop("last").items()}
        yield {
            **found, "given_name": run.given_name, "last": last, "best_step": best.get("step"),
            "best_metric": best.get("metric"), "best_value": best.get("value"), "checkpoints": run.checkpoint_steps(),
        }  # fmt: skip


def _metric_rows(workspace: Workspace) -> Iterator[dict[str, Any]]:
    """A line a step: its numbers by name, as texts, because JSON has neither nan nor infinities."""
    from workbench.run_list import all_runs

    for run in all_runs(workspace):
        for line in run.metrics():
            numbers = {
                name: repr(value) if math.isfinite(value) else str(value) for name, value in line.metrics.items()
            }
            yield {
                "run": run.id, "step": line.step, "attempt": line.attempt, "unix_s": line.time, "metrics": numbers,
            }  # fmt: skip


def _sample_rows(workspace: Workspace) -> Iterator[dict[str, Any]]:
    from engine.run.samples_log import read_samples
    from workbench.run_list import all_runs

    for run in all_runs(workspace):
        for row in read_samples(run.folder):
            yield {"run": run.id, "unix_s": row.get("time"), **{name: row.get(name) for name in _SAMPLE_FIELDS}}


_SAMPLE_FIELDS = {
    "step": "BIGINT", "attempt": "BIGINT", "source": "VARCHAR", "prompt_id": "VARCHAR", "prompt": "VARCHAR",
    "completion": "VARCHAR", "reward": "DOUBLE", "scores": "MAP(VARCHAR, DOUBLE)", "logratio": "DOUBLE[]",
    "length": "BIGINT", "stopped": "BOOLEAN",
}  # fmt: skip
_JUDGMENT_TYPES = {
    "seq": "BIGINT", "repeat": "BIGINT", "strength": "BIGINT", "flagged": "BOOLEAN", "tags": "VARCHAR[]",
}  # fmt: skip
_RUN_TYPES = {
    "id": "VARCHAR", "method": "VARCHAR", "name": "VARCHAR", "given_name": "VARCHAR", "created": "VARCHAR",
    "state": "VARCHAR", "reason": "VARCHAR", "step": "BIGINT", "total_steps": "BIGINT", "seconds_left": "DOUBLE",
    "steps_per_s": "DOUBLE", "device": "VARCHAR", "last": "MAP(VARCHAR, DOUBLE)", "best_step": "BIGINT",
    "best_metric": "VARCHAR", "best_value": "DOUBLE", "checkpoints": "BIGINT[]", "note": "VARCHAR", "alarm": "VARCHAR",
}  # fmt: skip
_METRIC_COLUMNS = ("run", "step", "attempt", "unix_s", "name", "value")


def _loop_view(name: str, words: str, rows: Rows, types: dict[str, str]) -> SqlView:
    return SqlView(name, tuple(types), words, rows=rows, types=tuple(types.values()))


_LOOP = (
    _loop_view("datasets", "a dataset", _dataset_rows, {
        "name": "VARCHAR", "shape": "VARCHAR", "rows": "BIGINT", "rejected": "BIGINT", "origin": "VARCHAR",
        "kind": "VARCHAR", "path": "VARCHAR", "bytes": "BIGINT", "sha256": "VARCHAR", "created": "VARCHAR",
        "note": "VARCHAR",
    }),
    _loop_view("pair_sets", "a pair set or an arena", _pair_set_rows, {
        "set": "VARCHAR", "kind": "VARCHAR", "pairs": "BIGINT", "scale": "VARCHAR", "sha256": "VARCHAR",
        "created": "VARCHAR", "note": "VARCHAR",
    }),
    _loop_view("judgments", "a line of a journal; stands: it is the verdict that holds", _judgment_rows, {
        "set": "VARCHAR", "kind": "VARCHAR",
        **{name: _JUDGMENT_TYPES.get(name, "VARCHAR") for name in Judgment._fields}, "stands": "BOOLEAN",
    }),
    _loop_view("preference_sets", "a frozen preference set", _preference_set_rows, {
        "name": "VARCHAR", "train": "BIGINT", "eval": "BIGINT", "sources": "VARCHAR[]", "sha256": "VARCHAR",
        "created": "VARCHAR", "note": "VARCHAR",
    }),
    _loop_view("runs", "a run", _run_rows, _RUN_TYPES),
    SqlView("metrics", _METRIC_COLUMNS, "one number of one step of a run, of the attempt that counts",
            rows=_metric_rows, types=("VARCHAR", "BIGINT", "BIGINT", "DOUBLE", "MAP(VARCHAR, VARCHAR)")),
    _loop_view("samples", "a completion that a run logged", _sample_rows,
               {"run": "VARCHAR", "unix_s": "DOUBLE", **_SAMPLE_FIELDS}),
)  # fmt: skip


# The sets.


def _datasets(workspace: Workspace, problems: list[str]) -> Iterator[SqlView]:
    from workbench.dataset_store import list_datasets

    datasets, faults = list_datasets(workspace)
    problems += faults
    for dataset in datasets:
        source = dataset.info.source
        yield SqlView(
            f"datasets.{dataset.name}", tuple(dataset.info.columns), f"a row of the dataset, {dataset.shape}",
            (workspace.resolve(source.path),), source.file_kind,
        )  # fmt: skip


def _preference_sets(workspace: Workspace) -> Iterator[SqlView]:
    for name in workspace.names("prefs"):
        sides = tuple(workspace.prefs / name / f"{side}.jsonl" for side in ("train", "eval"))
        yield SqlView(
            f"prefs.{name}", ("side", *_first_keys(sides[0])), "a row of the preference set, train or eval", sides,
            FileKind("jsonl"),
        )  # fmt: skip


def _pair_sets(workspace: Workspace) -> Iterator[SqlView]:
    from workbench.pair_sets import COLUMNS

    of_kinds: tuple[tuple[Kind, str], ...] = (("pairs", "a pair of the set"), ("arena", "a pair of the arena"))
    for kind, words in of_kinds:
        for name in workspace.names(kind):
            file = workspace.root / kind / name / "pairs.parquet"
            yield SqlView(f"{kind}.{name}", tuple(COLUMNS), words, (file,), FileKind("parquet"))


def _first_keys(path: Path) -> tuple[str, ...]:
    """The keys of the first row of a JSON-lines file; none where it has no row."""
    try:
        with open(path, "rb") as file:
            first = orjson.loads(file.readline())
    except (OSError, orjson.JSONDecodeError):
        return ()
    return tuple(first) if isinstance(first, dict) else ()
