"""Held-out measurements of one or more models: `python -m engine.evaluate JOB.json`.

JOB.json holds one job or {"jobs": […]}; a job names a model {"path", "adapter"}, a data file, an `out` file and a kind:

- "loss": summed negative log-likelihood and token count of each row's trained tokens;
- "logprob": summed log-prob of chosen and of rejected;
- "reward": raw reward of chosen and of rejected, by a reward model's checkpoint;
- "score": raw and normalised reward of each row's completion, by a reward model's checkpoint.

A checkpoint's own tokenizer and chat template are used where it carries them, so that texts are read as in training.

Each job's rows and a last {"summary": …} line are written to its `out` file at once. Progress is JSON lines on stdout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import torch

from engine.data.answer_examples import AnswerExample, read_answers
from engine.data.chat import ChatTokenizer
from engine.data.examples import read_preferences
from engine.data.packing import Document, fill_by_token_budget, pack
from engine.data.reading import ReadingCounts
from engine.data.sft_examples import SftExample, read_sft
from engine.errors import ConfigError, EngineError
from engine.methods.method import mean_and_error, ratio_standard_error
from engine.methods.preference import pair_log_probs
from engine.methods.reward import accuracy_of, pack_pairs, pair_lengths
from engine.model.adapters import POLICY, RoleModel, build_roles
from engine.model.heads import load_reward_head
from engine.model.loading import load_causal_lm, read_adapter_config
from engine.model.row_sharing import row_sharing
from engine.run.durable_files import write_atomically
from engine.run.safe_text import safe

KINDS = ("loss", "logprob", "reward", "score")
TOKENS_AT_ONCE = 8192


def main(argv: list[str] | None = None) -> int:
    """Run the jobs of a file. Exit code 1 with one line on stderr where one cannot be done."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -m engine.evaluate JOB.json", file=sys.stderr)
        return 2
    try:
        described = orjson.loads(Path(arguments[0]).read_bytes())
        jobs = described.get("jobs", [described])
        for number, job in enumerate(jobs):
            evaluate(job)
            print(json.dumps({"done": number + 1, "total": len(jobs), "what": str(job["out"])}), flush=True)
    except EngineError as error:
        print(safe(str(error)), file=sys.stderr)
        return 1
    return 0


def evaluate(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job, write its `out` file, and return the summary."""
    kind = job["kind"]
    if kind not in KINDS:
        raise ConfigError(f"evaluate: kind {kind!r}: expected one of {', '.join(KINDS)}")
    if job.get("threads"):
        torch.set_num_threads(int(job["threads"]))
    device = torch.device(job.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    folder = Path(job["model"]["path"])
    adapter = Path(job["model"]["adapter"]) if job["model"].get("adapter") else None
    tokenizer = ChatTokenizer.of_model(folder, adapter)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    if adapter is not None:
        read_adapter_config(adapter, folder)
    model = load_causal_lm(folder, dtype=dtype, device=device)
    sharing = row_sharing(model)
    roles = build_roles(
        model,
        kind="full" if adapter is None else "lora",
        trained=POLICY,
        start_adapter=adapter,
    )
    roles.rows = sharing
    roles.model.requires_grad_(False).eval()
    data, longest = Path(job["data"]), int(job.get("max_length", 1024))
    with torch.no_grad():
        if kind == "loss":
            rows, summary = _losses(roles, *read_sft(data, tokenizer, longest, "completion"), device)
        elif kind == "score":
            rows, summary = _answers(roles, *read_answers(data, tokenizer, longest), device, adapter or folder)
        else:
            head_folder = (adapter or folder) if kind == "reward" else None
            rows, summary = _pairs(roles, *read_preferences(data, tokenizer, longest), device, head_folder)
    lines = [*rows, {"summary": {"kind": kind, **summary}}]
    write_atomically(Path(job["out"]), b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return dict(summary)


def _losses(
    roles: RoleModel, examples: Sequence[SftExample], counts: ReadingCounts, device: torch.device
) -> tuple[Any, Any]:
    """A line for each row: the examples that it was split into are added up."""
    sums: dict[str, float] = {example.id: 0.0 for example in examples}
    tokens = dict.fromkeys(sums, 0)
    for group in fill_by_token_budget([len(e.ids) for e in examples], TOKENS_AT_ONCE):
        batch = pack([Document(examples[i].ids, examples[i].trained) for i in group], device)
        scores, _ = roles.scores(batch, POLICY)
        for i, total, count in zip(
            group, batch.sum_by_document(-scores.log_probs_N).tolist(), batch.targets_per_document, strict=True
        ):
            sums[examples[i].id] += total
            tokens[examples[i].id] += count
    rows = [{"id": row, "nll": sums[row], "tokens": tokens[row]} for row in sums]
    return rows, {
        "loss": sum(sums.values()) / sum(tokens.values()),
        "standard_error": ratio_standard_error(list(sums.values()), [float(n) for n in tokens.values()]),
        "n": len(sums),
        "dropped": dict(counts.dropped),
        "truncated": counts.truncated,
    }


def _pairs(
    roles: RoleModel, examples: Sequence[Any], counts: ReadingCounts, device: torch.device, head_folder: Path | None
) -> tuple[Any, Any]:
    if head_folder is None:
        scores_P2 = pair_log_probs(roles, POLICY, examples, budget=TOKENS_AT_ONCE, device=device, check=lambda: None)
    else:
        head, _ = load_reward_head(head_folder)
        head.to(device)
        scores_P2 = torch.zeros(len(examples), 2, device=device)
        for group in fill_by_token_budget(pair_lengths(examples, roles), TOKENS_AT_ONCE):
            batch = pack_pairs([examples[i] for i in group], device, scored=False)
            hidden_TH = roles.hidden(batch, POLICY)
            scores_P2[group] = head(hidden_TH.index_select(0, batch.last_rows_D)).view(-1, 2)
    accuracy, error = mean_and_error(accuracy_of(scores_P2[:, 0], scores_P2[:, 1]).tolist())
    rows = [
        {"id": e.id, "chosen": chosen, "rejected": rejected}
        for e, (chosen, rejected) in zip(examples, scores_P2.tolist(), strict=True)
    ]
    return rows, {
        "accuracy": accuracy,
        "standard_error": error,
        "n": len(examples),
        "dropped": dict(counts.dropped),
        "truncated": counts.truncated,
    }


def _answers(
    roles: RoleModel, examples: Sequence[AnswerExample], counts: ReadingCounts, device: torch.device, head_folder: Path
) -> tuple[Any, Any]:
    head, scale = load_reward_head(head_folder)
    head.to(device)
    documents = [Document([*e.prompt, *e.answer], [False] * (len(e.prompt) + len(e.answer))) for e in examples]
    rewards = [0.0] * len(documents)
    for group in fill_by_token_budget([len(document.ids) for document in documents], TOKENS_AT_ONCE):
        batch = pack([documents[i] for i in group], device)
        scores_D = head(roles.hidden(batch, POLICY).index_select(0, batch.last_rows_D))
        for i, reward in zip(group, scores_D.tolist(), strict=True):
            rewards[i] = reward
    mean, error = mean_and_error(rewards)
    rows = [
        {"id": e.id, "reward": reward, "normalised": scale.normalised(reward)}
        for e, reward in zip(examples, rewards, strict=True)
    ]
    return rows, {
        "reward": mean,
        "standard_error": error,
        "n": len(rows),
        "scale": asdict(scale),
        "dropped": dict(counts.dropped),
        "truncated": counts.truncated,
    }


if __name__ == "__main__":
    sys.exit(main())
