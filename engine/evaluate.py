"""Held-out measurements of one or more models: `python -m engine.evaluate JOB.json`.

JOB.json holds one job or {"jobs": […]}; a job names a model {"path", "adapter"}, a data file, an `out` file and a kind:

- "loss": summed negative log-likelihood and token count of each row's trained tokens;
- "logprob": summed log-prob of chosen and of rejected;
- "reward": raw reward of chosen and of rejected, by a reward model's checkpoint.

Each job's rows and a last {"summary": …} line are written to its `out` file at once. Progress is JSON lines on stdout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch

from engine.data.chat import ChatTokenizer
from engine.data.examples import read_preferences, read_sft
from engine.data.packing import Document, fill_by_token_budget, pack
from engine.errors import ConfigError, EngineError
from engine.methods.method import mean_and_error, ratio_standard_error
from engine.methods.preference import pair_log_probs
from engine.methods.reward import accuracy_of, pack_pairs, pair_tokens
from engine.model.adapters import POLICY, RoleModel, build_roles
from engine.model.heads import load_reward_head
from engine.model.loading import load_causal_lm
from engine.run.durable_files import write_atomically
from engine.run.safe_text import safe

KINDS = ("loss", "logprob", "reward")
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
    tokenizer = ChatTokenizer.from_folder(folder)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    roles = build_roles(
        load_causal_lm(folder, dtype=dtype, device=device),
        kind="full" if adapter is None else "lora",
        trained=POLICY,
        start_adapter=adapter,
    )
    roles.model.requires_grad_(False).eval()
    data, longest = Path(job["data"]), int(job.get("max_length", 1024))
    with torch.no_grad():
        if kind == "loss":
            rows, summary = _losses(roles, *read_sft(data, tokenizer, longest, "completion"), device)
        else:
            head_folder = (adapter or folder) if kind == "reward" else None
            rows, summary = _pairs(roles, *read_preferences(data, tokenizer, longest), device, head_folder)
    lines = [*rows, {"summary": {"kind": kind, **summary}}]
    write_atomically(Path(job["out"]), b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return dict(summary)


def _losses(roles: RoleModel, examples: Sequence[Any], dropped: Any, device: torch.device) -> tuple[Any, Any]:
    sums = [0.0] * len(examples)
    counts = [0] * len(examples)
    for group in fill_by_token_budget([len(e.ids) for e in examples], TOKENS_AT_ONCE):
        batch = pack([Document(examples[i].ids, examples[i].trained) for i in group], device)
        scores, _ = roles.scores(batch, POLICY)
        for i, total, count in zip(
            group, batch.sum_by_document(-scores.log_probs_N).tolist(), batch.targets_per_document, strict=True
        ):
            sums[i], counts[i] = total, count
    rows = [{"id": e.id, "nll": s, "tokens": c} for e, s, c in zip(examples, sums, counts, strict=True)]
    return rows, {
        "loss": sum(sums) / sum(counts),
        "standard_error": ratio_standard_error(sums, [float(c) for c in counts]),
        "n": len(examples),
        "dropped": dict(dropped),
    }


def _pairs(
    roles: RoleModel, examples: Sequence[Any], dropped: Any, device: torch.device, head_folder: Path | None
) -> tuple[Any, Any]:
    if head_folder is None:
        scores_P2 = pair_log_probs(roles, POLICY, examples, budget=TOKENS_AT_ONCE, device=device, check=lambda: None)
    else:
        head, _, _ = load_reward_head(head_folder)
        head.to(device)
        scores_P2 = torch.zeros(len(examples), 2, device=device)
        for group in fill_by_token_budget([pair_tokens(e) for e in examples], TOKENS_AT_ONCE):
            batch = pack_pairs([examples[i] for i in group], device, scored=False)
            hidden_TH = roles.hidden(batch, POLICY)
            scores_P2[group] = head(hidden_TH.index_select(0, batch.last_rows_D)).view(-1, 2)
    accuracy, error = mean_and_error(accuracy_of(scores_P2[:, 0], scores_P2[:, 1]).tolist())
    rows = [
        {"id": e.id, "chosen": chosen, "rejected": rejected}
        for e, (chosen, rejected) in zip(examples, scores_P2.tolist(), strict=True)
    ]
    return rows, {"accuracy": accuracy, "standard_error": error, "n": len(examples), "dropped": dict(dropped)}


if __name__ == "__main__":
    sys.exit(main())
