"""What each of several sources gives to a run: before it starts as an estimate, and as the run has told it.

Owns that reckoning for `--dry-run` and the words for both. Shares are reckoned as `engine.data.mixture` keeps them. An
estimate is from the rows of each source that were read, and is called one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.run.config import DataConfig
from engine.run.metric_names import STANDARD_ERROR, source_family, source_labels
from workbench.left_out import left_out_words
from workbench.terminal_output import number

if TYPE_CHECKING:
    from workbench.left_out import LeftOut
    from workbench.run_examples import Split
    from workbench.run_sample import ReadSample


def sources_estimate(
    data: DataConfig, rows: Mapping[Split, Sequence[int]], samples: Sequence[ReadSample], left_out: LeftOut
) -> list[dict[str, Any]]:
    """For each source what an epoch takes of it; `rows` are those of "train" and "eval" from each, `samples` what was
    read of its training rows, `left_out` what became no example of either side."""
    examples = [n * s.examples / max(1, s.rows) for n, s in zip(rows["train"], samples, strict=True)]
    tokens_each = [s.tokens / max(1, s.examples) for s in samples]
    of = [1.0] * len(samples) if data.weights_by == "rows" else tokens_each
    there = [count * size for count, size in zip(examples, of, strict=True)]
    taken = examples
    if data.weights:
        shares = [weight / sum(data.weights) for weight in data.weights]
        taken = [sum(there) * share / size if size else 0.0 for share, size in zip(shares, of, strict=True)]
    tokens = [count * each for count, each in zip(taken, tokens_each, strict=True)]
    return [
        {
            "name": name,
            "weight": data.weights[i] if data.weights else None,
            "rows": rows["train"][i],
            "held_out": rows["eval"][i],
            "left_out": dict(left_out.each[i]),
            "examples_an_epoch": round(taken[i]),
            "tokens_an_epoch": round(tokens[i]),
            "share_of_examples": taken[i] / max(1.0, sum(taken)),
            "share_of_tokens": tokens[i] / max(1.0, sum(tokens)),
            "passes_an_epoch": taken[i] / examples[i] if examples[i] else 0.0,
            **samples[i].facts(),
        }
        for i, name in enumerate(data.names)
    ]


def source_fields(sources: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A field for each source, of an estimate or of a run's `data` event; what cannot be read is left out."""
    fields: dict[str, str] = {}
    for source in sources:
        try:
            fields[f"  {source['name']}"] = _words(source)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return fields


def sources_told(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What the last attempt of a run told of its sources, with what the last evaluation found of each as "figures";
    empty for one source."""
    found: Any = None
    evaluated: Mapping[str, Any] = {}
    for event in events:
        found = event.get("sources") if event.get("kind") == "data" else found
        evaluated = event if event.get("kind") == "evaluated" else evaluated
    sources = [source for source in found if isinstance(source, Mapping)] if isinstance(found, list) else []
    labels = source_labels([str(source.get("name")) for source in sources])
    return [{**source, "figures": _figures(evaluated, label)} for source, label in zip(sources, labels, strict=True)]


def _figures(evaluated: Mapping[str, Any], label: str) -> str:
    """What an evaluation found of one source, with standard errors, in words."""
    words = []
    for name, value in evaluated.items():
        family = source_family(name)
        if family and not family.endswith(STANDARD_ERROR) and name == f"{family}/{label}":
            error = evaluated.get(f"{family}{STANDARD_ERROR}/{label}")
            words.append(f"{family} {number(value, 4)}" + (f" ± {number(error, 2)}" if error is not None else ""))
    return f"{', '.join(words)} at step {evaluated.get('step')}" if words else ""


def shares_line(sources: Sequence[Mapping[str, Any]]) -> str:
    """One short line: what share of the examples each source has, and which come more than once an epoch."""
    return " · ".join(
        f"{source['name']} {_percent(source['share_of_examples'])}"
        + (f", {number(source['passes_an_epoch'], 2)} passes" if source["passes_an_epoch"] > 1.005 else "")
        for source in sources
    )


def _words(source: Mapping[str, Any]) -> str:
    sample = source.get("sample")
    held_out = f"{source['held_out']:,} {'held out' if sample else 'held-out examples measured'}"
    words = (
        f"{source['rows']:,} rows, {held_out}; an epoch takes {source['examples_an_epoch']:,} "
        f"examples ({_percent(source['share_of_examples'])}), {source['tokens_an_epoch']:,} tokens "
        f"({_percent(source['share_of_tokens'])})"
    )
    if abs(source["passes_an_epoch"] - 1) > 0.005:
        words += f", {number(source['passes_an_epoch'], 2)} passes"
    counts = source if sample is None else sample
    lost = [f"{reason}: {count:,}" for reason, count in counts["dropped"].items()]
    lost += [f"cut at data.max_length: {counts['truncated']:,}"] if counts["truncated"] else []
    lost += [f"{how}: {count:,}" for how, count in counts["treatments"].items()]
    if lost:
        words += "; " + (f"of the first {sample['rows']:,} rows " if sample else "") + ", ".join(lost)
    words += f"; left out: {left}" if (left := left_out_words(source.get("left_out", {}))) else ""
    return words + (f"; {source['figures']}" if source.get("figures") else "")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
