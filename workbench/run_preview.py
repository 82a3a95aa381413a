"""What a run would be, before it exists: its full config with the origin of each value, and what it would cost.

Owns `--print-config` and `--dry-run`. Invariant: nothing is written and nothing is started; every figure that is an
estimate is called one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import tomli_w

from engine.run.cadence import CHECKPOINTS_A_RUN, steps_between
from engine.run.config import sections_of
from engine.run.config_layers import Resolved
from engine.run.config_schema import SCHEMA
from engine.run.durable_files import free_megabytes
from workbench.data_weights import as_written
from workbench.launch_rewards import as_written as rewards_as_written
from workbench.left_out import LeftOut, left_out_words
from workbench.run_cost import activation_words, cost_of, memory_words
from workbench.run_examples import Example, Split
from workbench.run_launch import Plan, examples_of, require_each
from workbench.run_sample import ROWS_READ, read_samples, sample_words
from workbench.run_sources import source_fields, sources_estimate
from workbench.terminal_output import duration

COMMENT_COLUMN = 40


def config_with_origins(resolved: Resolved) -> str:
    """The complete run.toml, with where each value comes from as a comment; itself a valid recipe."""
    values = asdict(resolved.config)
    lines = [f"schema = {SCHEMA}"]
    for section in sections_of(resolved.config.run.method):
        lines += ["", f"[{section}]"]
        for key, value in values[section].items():
            plain = list(value) if isinstance(value, tuple) else value
            # tomli_w spreads a list over lines; what is in it are names and numbers, which hold no line end.
            one_line = tomli_w.dumps({key: plain}).strip().replace("\n   ", "")
            written = re.sub(r"\[\s+(.*?),?\s+\]", r"[\1]", one_line)
            comment = f"# {resolved.origins.get(f'{section}.{key}', 'default')}"
            lines.append(f"{written:<{COMMENT_COLUMN - 1}} {comment}")
    return "\n".join(lines)


def dry_run(plan: Plan, go_on: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Rows, tokens, steps, memory and what would be written, for a person or as JSON.

    `go_on` is called for each row; it may raise to end the count.
    """
    config = plan.resolved.config
    left_out = LeftOut(len(plan.data))
    rows_each, kept, size = _counted(plan, go_on, left_out)
    require_each(plan, rows_each["train"])
    rows = {split: sum(counts) for split, counts in rows_each.items()}
    read, samples = read_samples(plan, kept)
    sources = sources_estimate(config.data, rows_each, samples, left_out)
    examples = sum(source["examples_an_epoch"] for source in sources)
    mixed = [source["examples_an_epoch"] / max(1, examples) for source in sources]
    each = sum(share * s.tokens / max(1, s.examples) for share, s in zip(mixed, samples, strict=True))
    steps = _steps(plan, examples)
    seen = steps * config.train.batch_size if config.train.steps else round(config.train.epochs * examples)
    facts: dict[str, Any] = {
        "schema": 1,
        "run": plan.run_id,
        "method": config.run.method,
        "model": plan.model.source,
        "data": list(as_written(config.data)),
        "train_rows": rows["train"],
        "eval_rows": rows["eval"],
        "left_out": left_out.total,
        "examples_estimate": examples,
        "tokens_a_row_estimate": round(each * examples / max(1, rows["train"]) if not config.data.weights else each),
        "tokens_estimate": round(each * seen),
        "cut_at_max_length_estimate": read.truncated / max(1, read.examples),
        **read.facts(),
        **({"sources": sources} if len(sources) > 1 else {}),
        **({"doubts": list(plan.doubts)} if plan.doubts else {}),
        "steps": steps,
        "device": config.train.device,
        "processes": config.train.processes,
        "would_write": str(plan.path),
        "examples_bytes": size,
        "free_megabytes": free_megabytes(plan.workspace.root),
    }
    every = steps_between(config.checkpoint.every, steps, times=CHECKPOINTS_A_RUN)
    lengths = read.lengths
    if lengths is not None and len(sources) > 1:
        lengths = replace(lengths, mean=each)
    if cost := cost_of(plan, lengths, steps // every + 1):
        span = [cost.step.low * steps, cost.step.high * steps]
        facts |= {**cost.facts(), "seconds_estimate": cost.step.seconds * steps, "seconds_range": span}
    if plan.rewards.models:
        facts["reward_model"] = plan.rewards.models[0].source
    if rewards := rewards_as_written(config):
        facts["rewards"] = list(rewards)
    return facts


def device_words(facts: Mapping[str, Any]) -> str:
    """cpu, or cuda, 2 processes."""
    many = facts["processes"]
    return f"{facts['device']}, {many} processes" if many > 1 else str(facts["device"])


def each_process(facts: Mapping[str, Any]) -> str:
    """What stands behind the memory of one process where there are several."""
    return " for each process" if facts["processes"] > 1 else ""


def time_words(facts: Mapping[str, Any]) -> str:
    """How long a run would take; where none like it has ended here, that it is a guess, and from when to when."""
    if facts["seconds_measured"]:
        return f"about {duration(facts['seconds_estimate'])}"
    low, high = facts["seconds_range"]
    return f"not known until a run like it has ended here; a guess: {duration(low)} to {duration(high)}"


def dry_run_fields(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a dry run as names and values for a person."""
    fields = {
        "run": f"{facts['run']} (an example: the end is drawn at the start)",
        "method": f"{facts['method']} on {device_words(facts)}",
        "model": facts["model"],
        "rewards": ", ".join(facts.get("rewards", ())),
        "data": f"{', '.join(facts['data'])}: {facts['train_rows']:,} rows, {facts['eval_rows']:,} held out",
        **source_fields(facts.get("sources", ())),
        "left out": left_out_words(facts["left_out"]),
        "tokens": f"about {facts['tokens_estimate']:,} ({facts['tokens_a_row_estimate']:,} a row)",
        "steps": f"{facts['steps']:,}",
        "time": "",
        "would write": f"{facts['would_write']}, {megabytes(facts['examples_bytes'])} of examples",
        "memory": "",
        "activations": "",
        "disk": f"{facts['free_megabytes']:,} MB free",
    }
    if "memory_bytes_estimate" in facts:
        fields["time"] = (
            f"{time_words(facts)}, {facts['seconds_a_step_estimate']:,.2g} s a step "
            f"({facts['timed_by']}; without evaluation, probes and checkpoints)"
        )
        fields["memory"] = memory_words(facts)
        fields["activations"] = activation_words(facts)
        fields["disk"] = (
            f"about {megabytes(facts['disk_bytes_estimate'])} for {facts['checkpoints_kept_estimate']} checkpoints and "
            f"one being written (an estimate); {facts['free_megabytes']:,} MB free"
        )
    fields |= {} if "sources" in facts else sample_words(facts)
    return {name: value for name, value in fields.items() if value}


def _counted(
    plan: Plan, go_on: Callable[[], None], left_out: LeftOut
) -> tuple[dict[Split, list[int]], list[list[Example]], int]:
    """Rows of both sides from each source, the first training rows of each, and the bytes of all rows."""
    many = len(plan.data)
    rows: dict[Split, list[int]] = {"train": [0] * many, "eval": [0] * many}
    kept: list[list[Example]] = [[] for _ in range(many)]
    size = 0
    for split, example, source in examples_of(plan, left_out):
        go_on()
        rows[split][source] += 1
        if split == "train" and len(kept[source]) < ROWS_READ // many:
            kept[source].append(example)
        size += _bytes_of(example)
    return rows, kept, size


def _steps(plan: Plan, rows: int) -> int:
    train = plan.resolved.config.train
    if train.steps:
        return train.steps
    return math.ceil(max(1, round(train.epochs * rows)) / train.batch_size)


def _bytes_of(example: Example) -> int:
    import orjson

    return len(orjson.dumps(example)) + 1


def megabytes(size: float) -> str:
    """A size for a person."""
    return f"{size / 1e6:,.1f} MB"
