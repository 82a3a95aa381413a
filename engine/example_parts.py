"""The examples of a run: training and held-out ones, their order, and the prompts of its probe.

Owns which of the prepared examples are used for what, and what is said of dropped rows. Invariant: a pure function of
run.toml, the frozen files and the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.example_store import StoredExamples
from engine.data.examples import PromptExample
from engine.data.mixture import MixedSource
from engine.data.reading import ReadingCounts, no_usable_row
from engine.data.sources import spread, stretches
from engine.data.token_facts import TokenFacts, tokens_of
from engine.data.tokenised import Tokenised
from engine.errors import DataError
from engine.methods.method import ExampleOrder, HeldOutSources
from engine.model.memory_estimate import PARTS, estimate_memory
from engine.prepared_data import PreparedData
from engine.probe import choose_prompts
from engine.reporting import Reporter
from engine.run.config import RunConfig
from engine.run.metric_names import source_labels


@dataclass(frozen=True)
class RunExamples:
    """The examples of a run, and where they are from."""

    train: StoredExamples[Any]
    held_out: Sequence[Any]
    """Those that are measured."""
    order: ExampleOrder
    sources: HeldOutSources
    """Which of `held_out` came from which dataset; nothing where there is one dataset."""


def examples_of(config: RunConfig, reporter: Reporter, prepared: PreparedData) -> RunExamples:
    """Training and held-out examples and their order; what was dropped, cut and split of them is an event.

    Raises DataError where a source of a mixture gives nothing to train on.
    """
    train, held_out = prepared.train, prepared.held_out
    order = example_order(config, train)
    measured: Sequence[Any] = []
    sources = HeldOutSources()
    counts_held_out = ReadingCounts()
    if held_out is not None:
        measured, sources = _measured(config, held_out)
        counts_held_out = held_out.counts
    reporter.event(
        "data",
        train=len(train.examples),
        held_out=len(measured),
        **data_counts(train.counts, ""),
        **data_counts(counts_held_out, "_held_out"),
        **source_facts(config, train, order, sources),
    )
    return RunExamples(train.examples, measured, order, sources)


def _measured(config: RunConfig, held_out: Tokenised[Any]) -> tuple[StoredExamples[Any], HeldOutSources]:
    """The held-out examples that are measured, and which of them came from which source.

    Where evaluation.max_rows leaves a part of several sources, each gives its part of that.
    """
    limit = config.evaluation.max_rows or len(held_out.examples)
    if len(config.data.eval_rows_each) < 2:
        return held_out.examples[:limit], HeldOutSources()
    parts = stretches(config.data.eval_rows_each, held_out.examples)
    taken = spread(parts, limit)
    labels = source_labels(config.data.names)
    places = {
        label: [place for place, index in enumerate(taken) if index in part]
        for label, part in zip(labels, parts, strict=False)
    }
    return held_out.examples.take(taken), HeldOutSources(places)


def data_counts(counts: ReadingCounts, suffix: str) -> dict[str, Any]:
    """What reading a file lost and changed, as fields of the `data` event."""
    return {
        f"dropped{suffix}": dict(counts.dropped),
        f"truncated{suffix}": counts.truncated,
        f"treatments{suffix}": dict(counts.treatments),
    }


def example_order(config: RunConfig, train: Tokenised[Any]) -> ExampleOrder:
    """Which examples each step takes. Raises DataError where a source of a mixture has none, or next to no share."""
    mixed = _mixed_sources(config, train)
    order = ExampleOrder(
        len(train.examples),
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        steps=config.train.steps,
        seed=config.train.seed,
        mixed=mixed,
    )
    if order.mixture is not None:
        for number, name in enumerate(config.data.names):
            if order.mixture.taken(number, 1.0) == 0:
                raise DataError(
                    f"data.weights: of {order.mixture.position(1.0):,} examples an epoch the share of {name}, "
                    f"{order.mixture.shares[number]:.2g}, is less than one. Raise its weight, or leave it out"
                )
    return order


def _mixed_sources(config: RunConfig, train: Tokenised[Any]) -> list[MixedSource]:
    """The sources of the mixture that run.toml asks for; none where every row is taken once an epoch."""
    data = config.data
    if not data.weights:
        return []
    if len(data.train_rows_each) != len(data.names):
        raise DataError(
            f"run.toml: [data] train_rows_each = {list(data.train_rows_each)}: expected a number for each of "
            f"{', '.join(data.names)}, as a launch writes them. Start the run anew"
        )
    sources = []
    parts = stretches(data.train_rows_each, train.examples)
    tokens = tokens_of(train.examples, share_prompts=config.train.share_prompts) if data.weights_by == "tokens" else []
    for number, (name, part, weight) in enumerate(zip(data.names, parts, data.weights, strict=True)):
        if not part:
            counts = train.counts_each[number] if train.counts_each else train.counts
            raise DataError(f"{name}: {no_usable_row(counts, data.max_length)}; leave it out, or mend its rows")
        sizes = tokens[part.start : part.stop] if data.weights_by == "tokens" else [1] * len(part)
        sources.append(MixedSource(part.start, sizes, weight))
    return sources


def source_facts(
    config: RunConfig, train: Tokenised[Any], order: ExampleOrder, sources: HeldOutSources
) -> dict[str, Any]:
    """What each of several sources gives to the run, as a field of the `data` event; empty for one source.

    Of an epoch: examples and tokens, and what share they are of the whole. `passes` is how often an epoch takes the
    source whole.
    """
    data = config.data
    if len(data.train_rows_each) < 2:
        return {}
    parts = stretches(data.train_rows_each, train.examples)
    used = order.first_epoch()
    tokens = np.asarray(tokens_of(train.examples, share_prompts=config.train.share_prompts))
    all_tokens = int(tokens[used].sum())
    facts = []
    for number, (name, label, part) in enumerate(zip(data.names, source_labels(data.names), parts, strict=False)):
        own = used[(used >= part.start) & (used < part.stop)]
        own_tokens = int(tokens[own].sum())
        facts.append(
            {
                "name": name,
                "weight": data.weights[number] if data.weights else None,
                "rows": data.train_rows_each[number],
                "examples": len(part),
                "held_out": len(sources.places.get(label, ())),
                "examples_an_epoch": len(own),
                "tokens_an_epoch": own_tokens,
                "share_of_examples": len(own) / len(used),
                "share_of_tokens": own_tokens / all_tokens,
                "passes_an_epoch": len(own) / len(part) if part else 0.0,
                **(data_counts(train.counts_each[number], "") if train.counts_each else {}),
            }
        )
    return {"sources": facts}


def tell_estimate(
    config: RunConfig,
    base_folder: Path,
    facts: TokenFacts | None,
    reporter: Reporter,
    *,
    checkpointing: bool,
    cuda: bool,
) -> None:
    """Write the estimate of this run's memory down, to be compared with what it takes."""
    estimate = None
    if facts is not None:
        estimate = estimate_memory(config, base_folder, facts, checkpointing=checkpointing, cuda=cuda)
    if estimate is not None:
        parts = {part: getattr(estimate, part) for part in PARTS}
        reporter.event("memory_estimate", bytes=estimate.comparable, **parts)


def probe_prompts(config: RunConfig, prepared: PreparedData) -> list[PromptExample]:
    """The fixed prompts of the probe: held-out ones first; where they are too few, training prompts fill the set."""
    wanted, seed = config.probe.prompts, config.probe.seed
    prompts: list[PromptExample] = []
    for side in ["eval"] * prepared.has_held_out + ["train"]:
        if len(prompts) < wanted:
            prompts += choose_prompts(prepared.prompts(side).examples, wanted - len(prompts), seed)
    return prompts
