"""The figures of the demo: held-out losses and accuracies, controls, gold scores and sampled KL.

Owns what is measured on what. Invariants: everything here is held out (combinations that training never shows), every
mean has a standard error clustered by combination, and every difference is paired by prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.canonical_rows import last_user_text
from workbench.comparison import cluster_of
from workbench.demo_stations import Stage
from workbench.evaluation import (
    EvaluationJob,
    Measured,
    accuracy,
    clusters_of,
    evaluate,
    margins_of,
    token_loss,
    token_loss_difference,
)
from workbench.generation import Answer
from workbench.pair_generation import Answered
from workbench.run_examples import frozen_example
from workbench.run_watch import KL, KL_ERROR, KL_PER_TOKEN, series_of
from workbench.statistics import Estimate, mean_estimate, paired_difference

MAX_LENGTH = 256
SEVERAL = "several"


def measure_all(stage: Stage) -> dict[str, Any]:
    """Held-out loss, reward accuracy, preference accuracy and the controls, in one child process."""
    demonstrations = list(stage.dataset("demonstrations-heldout").rows())
    pairs = list(stage.dataset("preferences-heldout").rows())
    told = [frozen_example(row, "sft") for row in demonstrations]
    judged = [frozen_example(row, "dpo") for row in pairs]
    base, sft, dpo, reward = (stage.model(name) for name in ("base", "sft", "dpo", "reward"))
    device = stage.runs["sft"].config().train.device
    before, after, base_pairs, sft_pairs, dpo_pairs, rewards = evaluate(
        [
            EvaluationJob(base, told, "loss", device, max_length=MAX_LENGTH),
            EvaluationJob(sft, told, "loss", device, max_length=MAX_LENGTH),
            EvaluationJob(base, judged, "logprob", device, max_length=MAX_LENGTH),
            EvaluationJob(sft, judged, "logprob", device, max_length=MAX_LENGTH),
            EvaluationJob(dpo, judged, "logprob", device, max_length=MAX_LENGTH),
            EvaluationJob(reward, judged, "reward", device, max_length=MAX_LENGTH),
        ],
        quiet=True,
    )
    clusters = clusters_of(judged)
    return {
        "sft": _sft_figures(before, after, clusters_of(told)),
        "reward": _reward_figures(rewards, clusters, {row["id"]: str(row["tags"].get("error", "")) for row in pairs}),
        "dpo": _dpo_figures(base_pairs, sft_pairs, dpo_pairs, clusters),
        "controls": controls(stage),
    }


def controls(stage: Stage) -> dict[str, float]:
    """What can be had on the held-out pairs without reading the prompt: lengths, and words of the answer alone."""
    from sample_data.controls import all_controls
    from workbench.canonical_rows import text_of
    from workbench.preferences import open_preference_set

    def plain(rows: Any) -> list[dict[str, str]]:
        return [{side: text_of(row[side]) for side in ("chosen", "rejected")} for row in rows]

    train = plain(open_preference_set(stage.workspace, "preferences").rows("train"))
    return all_controls(train, plain(stage.dataset("preferences-heldout").rows()))


def gold_scores(answered: Answered, names: Sequence[str]) -> dict[str, Any]:
    """The rule's score of every answer: totals and components by model, and paired differences; how long answers are,
    and how many different words they have.

    `names` are those of the models that answered: base, sft, and what was trained from sft.
    """
    clusters = [cluster_of(prompt["tags"], prompt["id"]) for prompt in answered.prompts]
    asked = [last_user_text(prompt["prompt"]) for prompt in answered.prompts]
    said = dict(zip(names, answered.answers, strict=True))
    scores = {name: _scored(asked, answers) for name, answers in said.items()}
    totals = {name: [sum(row.values()) / len(row) for row in rows] for name, rows in scores.items()}
    models = {
        name: {
            "total": mean_estimate(totals[name], clusters).as_json(),
            "tokens": mean_estimate([float(answer.tokens) for answer in said[name]], clusters).as_json(),
            "distinct_words": len({word for answer in said[name] for word in answer.completion.split()}),
            "components": {
                part: mean_estimate([row[part] for row in rows], clusters).as_json()
                for part in (rows[0] if rows else ())
            },
        }
        for name, rows in scores.items()
    }
    differences = {
        f"{after} - {before}": _difference(paired_difference(totals[before], totals[after], clusters))
        for before, after in (("base", "sft"), *(("sft", name) for name in names[2:]))
    }
    return {"prompts": len(asked), "models": models, "differences": differences}


def sampled_kl(stage: Stage) -> dict[str, Any]:
    """The last sampled KL of every run that changed a policy, against what the run started from."""
    found = {}
    for name in stage.models[1:]:
        series = series_of(stage.runs[name])
        if KL not in series:
            continue
        step, value = series[KL][-1]
        found[name] = {
            "nats_per_sequence": value,
            "standard_error": dict(series.get(KL_ERROR, [])).get(step),
            "nats_per_token": dict(series.get(KL_PER_TOKEN, [])).get(step),
            "step": step,
        }
    return found


def _sft_figures(before: Measured, after: Measured, clusters: Mapping[str, str]) -> dict[str, Any]:
    return {
        "loss_before": token_loss(before, clusters).as_json(),
        "loss_after": token_loss(after, clusters).as_json(),
        "difference": _difference(token_loss_difference(before, after, clusters)),
    }


def _reward_figures(rewards: Measured, clusters: Mapping[str, str], errors: Mapping[str, str]) -> dict[str, Any]:
    """Overall, and by the component in which the rejected answer is worse; pairs with several are one group."""
    margins = margins_of(rewards)
    by_error: dict[str, dict[str, float]] = {}
    for row, margin in margins.items():
        error = errors.get(row, "")
        by_error.setdefault(SEVERAL if "+" in error else error or "unknown", {})[row] = margin
    ordered = sorted(by_error, key=lambda name: (name == SEVERAL, name))
    return {
        "accuracy": accuracy(margins, clusters).as_json(),
        "by_error": {name: accuracy(by_error[name], clusters).as_json() for name in ordered},
    }


def _dpo_figures(base: Measured, sft: Measured, dpo: Measured, clusters: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy of the implicit reward (log-ratio to the SFT model), which is 0.5 before, and of plain log-prob."""
    by_sft, by_dpo = margins_of(sft), margins_of(dpo)
    implicit = {row: by_dpo[row] - by_sft[row] for row in by_sft if row in by_dpo}
    return {
        "accuracy_before": accuracy(dict.fromkeys(by_sft, 0.0), clusters).as_json(),
        "accuracy_after": accuracy(implicit, clusters).as_json(),
        "accuracy_by_dpo_log_prob": accuracy(by_dpo, clusters).as_json(),
        "accuracy_by_sft_log_prob": accuracy(by_sft, clusters).as_json(),
        "accuracy_by_base_log_prob": accuracy(margins_of(base), clusters).as_json(),
    }


def _scored(asked: Sequence[str], answers: Sequence[Answer]) -> list[dict[str, float]]:
    from sample_data.gold_rule import score

    return [
        score(prompt, answer.completion, stopped=answer.stopped).components
        for prompt, answer in zip(asked, answers, strict=True)
    ]


def _difference(estimate: Estimate) -> dict[str, Any]:
    return {**estimate.as_json(), "in_standard_errors": estimate.in_standard_errors}
