"""Lint: everything in a dataset that one would want to know before it trains a model, found in one reading.

    rows ──▶ each row by itself (use, turns, characters, secrets, tokens) ──▶ findings
         └─▶ hashes and sketches in a folder that goes with them ──▶ repeats, leaks ──▶ findings

Owns the course of it and which reason of a refused row is which kind of finding. Invariants: the file is read once and
changed never; in memory are one batch of rows and a few dozen bytes a row; `progress` may raise at any step, and then
nothing is left. Refuses to decide what is done about a finding.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.run.user_cache import user_cache_folder
from workbench.analysis_cache import cached
from workbench.canonical_rows import text_of
from workbench.dataset_reading import place_word
from workbench.errors import UsageError
from workbench.lint_findings import KINDS, ROWS_KEPT, Finding, FoundRow, LintReport
from workbench.lint_lengths import LengthBias, is_biased, length_bias_words
from workbench.lint_repeats import Repeats
from workbench.lint_rows import RowSource, SourceRow, against_sources, row_source
from workbench.lint_texts import addresses_in, broken_order, harmful_characters, secrets_in, texts_of
from workbench.lint_tokens import MAX_LENGTH, TokenChecks
from workbench.near_duplicates import PARAMETERS, normal
from workbench.preferences import Side
from workbench.steps import Progress, Steps
from workbench.workspace import Workspace

_REPEATS = frozenset(("duplicates", "near-duplicates", "contradictions"))
_LEAKS = frozenset(("leaked-rows", "leaked-prompts", "near-leaked-prompts"))
_TOKENS = frozenset(("lost-difference", "no-room", "cut", "refused"))
_KIND_OF_REASON = {
    "chosen equals rejected": "equal-answers",
    "both answers are equal": "equal-answers",
    "the dialogues differ before the last answer": "prompt-differs",
    "an answer does not begin with the prompt": "prompt-differs",
    "one answer is only the beginning of the other": "prompt-differs",
    "no prompt": "prompt-differs",
    "unknown role": "role-order",
    "the prompt ends with an assistant turn": "role-order",
    "the prompt has no user turn": "role-order",
    "no assistant turn": "role-order",
    "the answer is not an assistant turn": "role-order",
    "the last turn is not the assistant's": "role-order",
    "speaker marker inside an answer": "speaker-marker",
}
NEEDS_OTHERS, NEEDS_TOKENS = "needs another dataset: --against OTHER", "needs a tokenizer: --model M"
"""Why something was not looked for."""
_EVERY = 256


def lint(
    workspace: Workspace,
    name: str,
    *,
    side: Side | None = None,
    against: Sequence[str] = (),
    model: str = "",
    max_length: int = MAX_LENGTH,
    only: Collection[str] = (),
    progress: Progress | None = None,
) -> LintReport:
    """What is found in the dataset (or that side of the preference set) called `name`.

    `against` are datasets and preference sets in which its prompts should not stand; the train side of a preference set
    is always compared with its held-out side. With `model`, rows are read as a run on it would at `max_length` tokens.
    With `only` no other kinds are looked for. `progress` counts rows.
    """
    source = row_source(workspace, name, side)
    if source.dataset is not None and name in against:
        raise UsageError(f"--against {name}: that is the dataset itself; duplicates are found without it.")
    others = [one for other in against for one in against_sources(workspace, other) if one.name != source.name]
    if source.dataset is None and (side or "train") == "train" and name not in against:
        others.append(row_source(workspace, name, "eval"))
    course = _Course(source, set(only or KINDS), others)
    if model:
        course.tokens = TokenChecks(workspace, model, max_length)
    steps = Steps(source.rows + sum(one.rows for one in course.others), progress)
    with tempfile.TemporaryDirectory(prefix="lint-", dir=_scratch()) as folder:
        repeats = Repeats(Path(folder), near=course.wants_near, against=bool(course.others))
        try:
            course.read(repeats, steps)
        finally:
            repeats.close()
    return course.report()


def lint_told(
    workspace: Workspace,
    name: str,
    *,
    side: Side | None = None,
    against: Sequence[str] = (),
    model: str = "",
    max_length: int = MAX_LENGTH,
    again: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What `lint` finds, as JSON, from the cache where these very rows were looked at before."""
    source = row_source(workspace, name, side)
    others = [row_source(workspace, name, "eval")] if source.dataset is None else []
    others += [one for other in against for one in against_sources(workspace, other)]
    tokens = TokenChecks(workspace, model, max_length) if model else None
    reading = asdict(source.dataset.info.recognition) if source.dataset else {}
    what = {
        "lint": source.sha256, "name": source.name, "reading": reading,
        "others": [(one.name, one.sha256) for one in others],
        "tokenizer": (tokens.model, tokens.sha256, tokens.max_length) if tokens else (),
    }  # fmt: skip

    def work() -> dict[str, Any]:
        found = lint(workspace, name, side=side, against=against, model=model, max_length=max_length, progress=progress)
        return found.as_json()

    return cached(what, work, again=again)


def _scratch() -> Path:
    """Where sketches lie meanwhile: the person's cache, because /tmp may be memory."""
    folder = user_cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


class _Course:
    """One lint, from its first row to its report."""

    def __init__(self, source: RowSource, wanted: set[str], others: list[RowSource]) -> None:
        self.source, self.others = source, others
        self.tokens: TokenChecks | None = None
        self._wanted = wanted
        self._findings: dict[str, Finding] = {}
        self._lengths = LengthBias()
        self._rows = self._usable = 0

    @property
    def wants_near(self) -> bool:
        return bool(self._wanted & {"near-duplicates", "near-leaked-prompts"})

    @property
    def _place(self) -> str:
        dataset = self.source.dataset
        return place_word(dataset.info.source.file_kind) if dataset else "line"

    def read(self, repeats: Repeats, steps: Steps) -> None:
        """Look at every row of the others and of this one, then at what they have in common."""
        for other in self.others:
            for number, one in enumerate(other.read()):
                if one.row is not None:
                    repeats.add_other(one.row)
                if number % _EVERY == 0:
                    steps.add(0)
            steps.add(other.rows)
        compares = bool(self._wanted & (_REPEATS | _LEAKS))
        for one in self.source.read():
            self._rows += 1
            if compares:
                repeats.add(one)
            self._look(one)
            if self._rows % _EVERY == 0:
                steps.add(_EVERY)
        if compares:
            self._find_repeats(repeats, steps)

    def _find_repeats(self, repeats: Repeats, steps: Steps) -> None:
        wanted = [kind for kind in self._wanted if kind in _REPEATS | _LEAKS]
        found: list[tuple[str, int, str]] = []
        kept: Counter[str] = Counter()

        def report(kind: str, index: int, detail: str) -> None:
            if kind in wanted:
                self._finding(kind).bits.add(index)
                kept[kind] += 1
                if kept[kind] <= ROWS_KEPT:
                    found.append((kind, index, detail))

        repeats.find(report, self._place, lambda: steps.add(0))
        places = repeats.places({index for _, index, _ in found})
        for kind, index, detail in found:
            self._findings[kind].rows.append(FoundRow(*places[index], detail))

    def _look(self, one: SourceRow) -> None:
        """Everything that one row shows by itself."""
        if one.row is None:
            self._refused(one)
            return
        self._usable += 1
        row: Any = one.row
        texts = list(texts_of(row))
        if letters := harmful_characters(texts):
            self._add("control-characters", one, letters)
        if keys := secrets_in(texts):
            self._add("secrets", one, keys, keys)
        if addresses := addresses_in(texts):
            self._add("emails", one, "1 address" if addresses == 1 else f"{addresses} addresses")
        if why := broken_order(row):
            self._add("role-order", one, why, why)
        for first, second in (("chosen", "rejected"), ("a", "b")):
            if first in row and normal(text_of(row[first])) == normal(text_of(row[second])):
                self._add("equal-answers", one, "but for white space or letter case")
        self._lengths.add(row)
        if self.tokens is not None and self._wanted & (_TOKENS | {"equal-answers"}):
            kind, why = self.tokens.look(row)
            if kind:
                self._add(kind, one, why)

    def _refused(self, one: SourceRow) -> None:
        kind = "unreadable" if one.raw is None else _kind_of(one.reason)
        self._add(kind, one, one.reason + (f" ({one.detail})" if one.detail else ""), one.reason)

    def _add(self, kind: str, one: SourceRow, detail: str, reason: str = "") -> None:
        if kind not in self._wanted:
            return
        finding = self._finding(kind)
        if finding.bits.add(one.index):
            if reason:
                finding.details[reason] = finding.details.get(reason, 0) + 1
            if len(finding.rows) < ROWS_KEPT:
                finding.rows.append(FoundRow(one.number, one.ordinal, detail))

    def _finding(self, kind: str) -> Finding:
        if kind not in self._findings:
            self._findings[kind] = Finding(kind, words=self._words())
        return self._findings[kind]

    def _words(self) -> dict[str, str]:
        return {
            "dataset": self.source.dataset.name if self.source.dataset else self.source.name,
            "against": ", ".join(one.name for one in self.others),
            "max_length": f"{self.tokens.max_length:,}" if self.tokens else "",
            "model": self.tokens.model if self.tokens else "",
        }

    def report(self) -> LintReport:
        measures = self._lengths.measures()
        if "length-bias" in self._wanted and is_biased(measures):
            self._finding("length-bias").details[length_bias_words(measures)] = measures["pairs"]
        return LintReport(
            name=self.source.name,
            rows=self._rows,
            usable=self._usable,
            findings=[self._findings[kind] for kind in KINDS if kind in self._findings],
            measures={"length_bias": measures} if measures else {},
            not_looked_for=self._not_looked_for(),
            parameters={
                "sha256": self.source.sha256,
                "near_duplicates": PARAMETERS,
                "against": {one.name: one.sha256 for one in self.others},
                **({"model": self.tokens.model, "tokenizer": self.tokens.sha256} if self.tokens else {}),
                **({"max_length": self.tokens.max_length} if self.tokens else {}),
            },
            place=self._place,
        )

    def _not_looked_for(self) -> dict[str, str]:
        why: dict[str, str] = {}
        if not self.others:
            why |= dict.fromkeys(_LEAKS, NEEDS_OTHERS)
        if self.tokens is None:
            why |= dict.fromkeys(_TOKENS, NEEDS_TOKENS)
        if self._lengths.is_empty:
            why["length-bias"] = why["contradictions"] = "needs preferences"
        why |= dict.fromkeys((kind for kind in KINDS if kind not in self._wanted), "not asked for")
        return {kind: why[kind] for kind in KINDS if kind in why}


def _kind_of(reason: str) -> str:
    """The kind of finding that a reason for not using a row is."""
    if reason.startswith(("empty ", "missing ")):
        return "empty-turns"
    return _KIND_OF_REASON.get(reason, "not-used")
