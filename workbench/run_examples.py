"""The examples that a run reads: from a dataset or preference set to frozen rows for training and for held-out measure.

Owns which shape suits which method and how a plain dataset is split. Invariants: all rows of one prompt land on one
side, by a hash of the prompt, so that the split is the same on every machine; a preference set keeps the split it was
frozen with. The frozen rows are those of the engine's contract: sft, preference or prompts rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from engine.run.method_names import ON_ROLLOUTS
from workbench.canonical_rows import CanonicalRow, group_of, is_held_out, prompt_of, prompts_of
from workbench.errors import NotFound, UsageError, some_of
from workbench.left_out import UNDESIRABLE, LeftOut
from workbench.workspace import Workspace

Split = Literal["train", "eval"]
Example = Mapping[str, Any]
EVAL_SHARE = 0.1

SHAPES_FOR: dict[str, tuple[str, ...]] = {
    "sft": ("prompt-completion", "messages", "text", "preference", "labelled"),
    "reward": ("preference",),
    "dpo": ("preference",),
    "simpo": ("preference",),
    "cpo": ("preference",),
    "orpo": ("preference",),
    "kto": ("labelled", "preference"),
    **dict.fromkeys(ON_ROLLOUTS, ("prompts", "prompt-completion", "messages", "preference", "answers", "labelled")),
}
ON_PAIRS = ("reward", "dpo", "simpo", "cpo", "orpo")
"""Methods whose examples are pairs."""


@dataclass(frozen=True)
class DataSource:
    """A dataset or a preference set, named after --data."""

    name: str
    kind: Literal["dataset", "preference set"]
    shape: str


class FrozenExample(NamedTuple):
    """A row as the engine reads it, and where it belongs."""

    split: Split
    example: Example
    source: int
    """Number of its source among those that were named."""


def find_source(workspace: Workspace, name: str) -> DataSource:
    """What `name` is in this workspace; NotFound says what there is."""
    if name in workspace.names("prefs"):
        return DataSource(name, "preference set", "preference")
    if name in workspace.names("datasets"):
        from workbench.dataset_store import open_dataset

        return DataSource(name, "dataset", open_dataset(workspace, name).shape)
    there = some_of([*workspace.names("datasets"), *workspace.names("prefs")])
    raise NotFound(f"no dataset or preference set named {name} in {workspace.root}. There are: {there}.")


def require_suits(source: DataSource, method: str) -> None:
    """Raises UsageError where `method` cannot be trained on this data, and says what it needs."""
    if source.shape in SHAPES_FOR[method]:
        return
    hint = ""
    if source.shape == "answers":
        hint = f" Judge it first: workbench pairs make P --from {source.name}, then workbench prefs freeze P --to Q."
    raise UsageError(
        f"{method} cannot train on {source.name}, a {source.kind} of shape {source.shape}: it needs "
        f"{' or '.join(SHAPES_FOR[method])}.{hint}"
    )


def examples_for(
    workspace: Workspace,
    names: Sequence[str],
    method: str,
    *,
    eval_share: float = EVAL_SHARE,
    seed: int = 1,
    left_out: LeftOut | None = None,
) -> Iterator[FrozenExample]:
    """Every frozen example of the named data, one source after the other; `left_out` counts the rows that give none."""
    counts = left_out or LeftOut(len(names))
    for number, name in enumerate(names):
        source = find_source(workspace, name)
        require_suits(source, method)
        for split, row in _rows_of(workspace, source, method, eval_share, seed, counts.each[number]):
            found = frozen_examples(row, method)
            if not found:
                counts.each[number][UNDESIRABLE] += 1
            for example in found:
                yield FrozenExample(split, example, number)


def rows_to_measure(workspace: Workspace, name: str, split: Literal["train", "eval", "all"]) -> list[CanonicalRow]:
    """The rows of D that `workbench eval` measures; a plain dataset is measured whole. UsageError where none are."""
    source = find_source(workspace, name)
    if source.kind == "dataset":
        from workbench.dataset_store import open_dataset

        rows = list(open_dataset(workspace, name).rows())
    else:
        wanted = ("train", "eval") if split == "all" else (split,)
        rows = [row for side in wanted for row in _preference_rows(workspace, name, side)]
    if not rows:
        raise UsageError(f"{name} has no rows on its {split} side; use --split train or all")
    return rows


def note_on(source: DataSource, method: str) -> str:
    """What is made of data that was not meant for the method alone; empty where nothing is to be said."""
    if method == "sft" and source.shape == "labelled":
        return f"{source.name} is labelled: only its desirable answers are trained on"
    if method == "kto" and source.shape == "preference":
        return f"{source.name} holds pairs: each gives a desirable and an undesirable answer"
    return ""


def frozen_examples(row: CanonicalRow, method: str) -> tuple[Example, ...]:
    """A row as the engine reads it for `method`: usually one example; two of a pair for kto, and none of an
    undesirable answer where answers are learnt by heart.
    """
    fields: Mapping[str, Any] = row
    if method == "sft" and fields.get("label") is False:
        return ()
    if method == "kto" and "chosen" in fields:
        both = {key: fields[key] for key in ("prompt", "weight", "group", "tools") if key in fields}
        both["tags"] = fields.get("tags") or {}
        sides = (("chosen", True), ("rejected", False))
        return tuple(
            {"id": f"{fields['id']}:{side}", **both, "completion": fields[side], "label": label}
            for side, label in sides
        )
    return (frozen_example(row, method),)


def frozen_example(row: CanonicalRow, method: str) -> Example:
    """One row as the engine reads it for `method`."""
    fields: Mapping[str, Any] = row
    tools = {"tools": fields["tools"]} if fields.get("tools") else {}
    return {**_fields_for(fields, method), **tools}


def _fields_for(fields: Mapping[str, Any], method: str) -> Example:
    tags = fields.get("tags") or {}
    if method in ON_ROLLOUTS:
        reference = {"reference": fields["reference"]} if "reference" in fields else {}
        return {"id": fields["id"], "prompt": fields["prompt"], "tags": tags, **reference}
    if method in ON_PAIRS:
        wanted = ("id", "prompt", "chosen", "rejected", "weight", "margin", "group")
        return {**{key: fields[key] for key in wanted}, "tags": tags}
    if method == "kto":
        return {**{key: fields[key] for key in ("id", "prompt", "completion", "label")}, "tags": tags}
    if "chosen" in fields:
        return {"id": fields["id"], "prompt": fields["prompt"], "completion": fields["chosen"], "tags": tags}
    keys = tuple(key for key in ("prompt", "completion", "messages", "text") if key in fields)
    return {"id": fields["id"], **{key: fields[key] for key in keys}, "tags": tags}


def _rows_of(
    workspace: Workspace, source: DataSource, method: str, eval_share: float, seed: int, left_out: Counter[str]
) -> Iterator[tuple[Split, CanonicalRow]]:
    if source.kind == "preference set":
        for side in ("train", "eval"):
            rows: Iterable[CanonicalRow] = _preference_rows(workspace, source.name, side)
            for row in prompts_of(rows, left_out) if method in ON_ROLLOUTS else rows:
                yield side, row
        return
    from workbench.dataset_store import open_dataset

    rows = open_dataset(workspace, source.name).rows()
    for row in prompts_of(rows, left_out) if method in ON_ROLLOUTS else rows:
        yield "eval" if is_held_out(_group(row), seed, eval_share) else "train", row


def _preference_rows(workspace: Workspace, name: str, side: str) -> Iterator[CanonicalRow]:
    from workbench.preferences import open_preference_set

    yield from open_preference_set(workspace, name).rows(side)  # type: ignore[arg-type]


def _group(row: CanonicalRow) -> str:
    prompt = prompt_of(row)
    if prompt is not None:
        return group_of(prompt)
    return group_of(str(row.get("text", row["id"])))
