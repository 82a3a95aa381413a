"""What a run would be, before it exists: its full config with the origin of each value, and what it would cost.

Owns `--print-config` and `--dry-run`. Invariant: nothing is written and nothing is started; every figure that is an
estimate is called one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import tomli_w

from engine.data.chat import ChatTokenizer
from engine.run.config import SCHEMA, sections_of
from engine.run.config_layers import Resolved
from engine.run.durable_files import free_megabytes
from workbench.run_examples import Example
from workbench.run_launch import Plan, examples_of

COMMENT_COLUMN = 40
ROWS_TOKENISED = 256
TRAINED_BYTES = 6
"""Bytes of a full checkpoint for each byte of bf16 weights: fp32 weights and two fp32 moments."""


def config_with_origins(resolved: Resolved) -> str:
    """The complete run.toml, with where each value comes from as a comment; itself a valid recipe."""
    values = asdict(resolved.config)
    lines = [f"schema = {SCHEMA}"]
    for section in sections_of(resolved.config.run.method):
        lines += ["", f"[{section}]"]
        for key, value in values[section].items():
            plain = list(value) if isinstance(value, tuple) else value
            # tomli_w spreads a list over lines; what is in it are names, which hold no line end.
            written = re.sub(r"\[\s+(.*?),?\s+\]", r"[\1]", tomli_w.dumps({key: plain}).strip()).replace("\n   ", "")
            comment = f"# {resolved.origins.get(f'{section}.{key}', 'default')}"
            lines.append(f"{written:<{COMMENT_COLUMN - 1}} {comment}")
    return "\n".join(lines)


def dry_run(plan: Plan) -> dict[str, Any]:
    """Rows, tokens, steps and what would be written, for a person or as JSON."""
    config = plan.resolved.config
    rows = {"train": 0, "eval": 0}
    kept: list[Example] = []
    size = 0
    for split, example in examples_of(plan):
        rows[split] += 1
        if split == "train" and len(kept) < ROWS_TOKENISED:
            kept.append(example)
        size += _bytes_of(example)
    tokens = _tokens_of(kept, ChatTokenizer.from_folder(plan.model.path), config.data.max_length)
    each = sum(tokens) / len(tokens) if tokens else 0.0
    steps = _steps(plan, rows["train"])
    seen = steps * config.train.batch_size if config.train.steps else round(config.train.epochs * rows["train"])
    facts: dict[str, Any] = {
        "schema": 1,
        "run": plan.run_id,
        "method": config.run.method,
        "model": plan.model.source,
        "data": list(plan.data),
        "train_rows": rows["train"],
        "eval_rows": rows["eval"],
        "tokens_a_row_estimate": round(each),
        "tokens_estimate": round(each * seen),
        "cut_at_max_length_estimate": sum(count >= config.data.max_length for count in tokens) / max(1, len(tokens)),
        "steps": steps,
        "device": config.train.device,
        "would_write": str(plan.path),
        "examples_bytes": size,
        "free_megabytes": free_megabytes(plan.workspace.root),
    }
    if config.adapter.kind == "full":
        weights = sum(file.stat().st_size for file in plan.model.path.glob("*.safetensors"))
        facts["checkpoint_bytes_estimate"] = weights * TRAINED_BYTES
    if plan.reward_model is not None:
        facts["reward_model"] = plan.reward_model.source
    return facts


def dry_run_fields(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a dry run as names and values for a person."""
    fields = {
        "run": f"{facts['run']} (an example: the end is drawn at the start)",
        "method": f"{facts['method']} on {facts['device']}",
        "model": facts["model"],
        "reward model": facts.get("reward_model", ""),
        "data": f"{', '.join(facts['data'])}: {facts['train_rows']:,} rows, {facts['eval_rows']:,} held out",
        "tokens": f"about {facts['tokens_estimate']:,} ({facts['tokens_a_row_estimate']:,} a row)",
        "steps": f"{facts['steps']:,}",
        "would write": f"{facts['would_write']}, {_megabytes(facts['examples_bytes'])} of examples",
        "a checkpoint": "",
        "disk": f"{facts['free_megabytes']:,} MB free",
    }
    if "checkpoint_bytes_estimate" in facts:
        fields["a checkpoint"] = f"about {_megabytes(facts['checkpoint_bytes_estimate'])}"
    if facts["cut_at_max_length_estimate"] > 0.01:
        fields["cut"] = f"about {100 * facts['cut_at_max_length_estimate']:.0f} % of the rows reach data.max_length"
    return {name: value for name, value in fields.items() if value}


def _steps(plan: Plan, rows: int) -> int:
    train = plan.resolved.config.train
    if train.steps:
        return train.steps
    return math.ceil(max(1, round(train.epochs * rows)) / train.batch_size)


def _tokens_of(examples: Sequence[Example], tokenizer: ChatTokenizer, longest: int) -> list[int]:
    """Tokens of each example as they go through the model, both answers of a pair counted."""
    return [sum(min(n, longest) for n in _lengths(example, tokenizer)) for example in islice(examples, ROWS_TOKENISED)]


def _lengths(example: Example, tokenizer: ChatTokenizer) -> list[int]:
    if "text" in example:
        return [len(tokenizer.whole_text(example["text"]).ids)]
    if "messages" in example:
        return [len(tokenizer.conversation(example["messages"]).ids)]
    prompt = example["prompt"]
    start = len(tokenizer.prompt_ids(prompt))
    answers = [example[key] for key in ("completion", "chosen", "rejected") if key in example]
    return [start + len(tokenizer.completion_ids(prompt, answer)) for answer in answers] or [start]


def _bytes_of(example: Example) -> int:
    import orjson

    return len(orjson.dumps(example)) + 1


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
