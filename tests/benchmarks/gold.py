"""What models of the sample domain are worth by its gold rule: `python -m tests.benchmarks.gold --workspace W M M2 …`.

W is a workspace whose dataset `prompts-heldout` is the demo's. Every model answers each of its prompts once, at
temperature 1, with the demo's seed. The first model is what the others are compared with, prompt by prompt; standard
errors are over combinations of part and symptom. The sampled KL is the last of the model's own run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sample_data.gold_rule import score
from workbench.canonical_rows import last_user_text
from workbench.comparison import cluster_of
from workbench.demo_stations import MAX_NEW_TOKENS, SAMPLING_SEED
from workbench.generation import Answer, Sampling
from workbench.model_names import resolve_model
from workbench.pair_generation import Answered, ask_models
from workbench.prompt_source import find_prompts
from workbench.run_list import find_run
from workbench.run_watch import KL, KL_ERROR, series_of
from workbench.statistics import mean_estimate, paired_difference
from workbench.workspace import Workspace, open_workspace


def main() -> int:
    """Ask, score, and print one JSON line a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("models", nargs="+", metavar="M", help="as after --model; the first is compared with")
    args = parser.parse_args()
    workspace = open_workspace(args.workspace)
    models = [resolve_model(workspace, name, quiet=True) for name in args.models]
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, seed=SAMPLING_SEED, device="cpu")
    answered = ask_models(find_prompts(workspace, "prompts-heldout"), models, sampling, quiet=True)
    components = [scored(answered, place) for place in range(len(models))]
    clusters = [cluster_of(prompt["tags"], prompt["id"]) for prompt in answered.prompts]
    first = totals(components[0])
    for model, parts, answers in zip(models, components, answered.answers, strict=True):
        figures: dict[str, Any] = {
            "model": model.source,
            "prompts": len(parts),
            "gold": mean_estimate(totals(parts), clusters).as_json(),
            "components": {part: round(sum(row[part] for row in parts) / len(parts), 4) for part in parts[0]},
            "tokens": sum(answer.tokens for answer in answers) / len(answers),
            "distinct words": len({word for answer in answers for word in answer.completion.split()}),
            **kl_of(workspace, model.source),
        }
        if parts is not components[0]:
            change = paired_difference(first, totals(parts), clusters)
            figures["over the first"] = {**change.as_json(), "in_standard_errors": change.in_standard_errors}
        print(json.dumps(figures), flush=True)
    return 0


def scored(answered: Answered, place: int) -> list[dict[str, float]]:
    """The rule's components for each answer of one model."""
    asked = [last_user_text(prompt["prompt"]) for prompt in answered.prompts]
    answers: Sequence[Answer] = answered.answers[place]
    return [
        score(prompt, answer.completion, stopped=answer.stopped).components
        for prompt, answer in zip(asked, answers, strict=True)
    ]


def totals(parts: Sequence[Mapping[str, float]]) -> list[float]:
    """The rule's score of each answer: the mean of its components."""
    return [sum(row.values()) / len(row) for row in parts]


def kl_of(workspace: Workspace, source: str) -> dict[str, Any]:
    """The last sampled KL of a model's run with its standard error; empty for a model without a run."""
    if not source.startswith("run:"):
        return {}
    series = series_of(find_run(workspace, source.removeprefix("run:").partition("@")[0]))
    if KL not in series:
        return {}
    return {"sampled KL": series[KL][-1][1], "its standard error": series[KL_ERROR][-1][1]}


if __name__ == "__main__":
    raise SystemExit(main())
