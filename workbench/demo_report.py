"""The demo's report as text: every figure with its standard error, at most 80 columns wide.

Owns the words. Refuses to compute: a figure that is not in the report's values is not in the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.terminal_output import Column, duration, number, table_lines

SHORT = {"base": "base", "sft": "SFT", "dpo": "DPO", "ppo": "PPO", "grpo": "GRPO", "rloo": "RLOO"}
CHANCE, TWO_SIDED = 0.5, 1.96
"""Of a pair; and standard errors that a 95 % interval reaches to each side."""
HIGH_WITHOUT_PREFERENCES = 0.8
"""Accuracy by log-prob above which the report says that a high accuracy after DPO proves little."""
MODELS_A_TABLE = 4
"""As many as 80 columns hold."""
CONTROLS = {
    "always_longer": "always the longer answer",
    "always_shorter": "always the shorter answer",
    "bag_of_words": "bag of words over the answer alone",
}


def report_lines(facts: Mapping[str, Any]) -> list[str]:
    """The whole report."""
    sections = [
        [
            "The loop, start to end, on synthetic sample data. Plus or minus is one",
            "standard error, clustered by combination.",
        ],
        _data(facts),
        _sft(facts),
        _preferences(facts),
        _kl(facts),
        _gold(facts),
        _arena(facts),
        _times(facts),
        _after(facts),
    ]
    return [line for number_, section in enumerate(sections) for line in (([""] if number_ else []) + section)]


def _data(facts: Mapping[str, Any]) -> list[str]:
    pairs = facts["pairs"]
    verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(pairs["verdicts"].items()))
    return [
        "Data",
        *_indented([[name, f"{rows:,} rows"] for name, rows in facts["data"].items()], right=(1,)),
        f"  {pairs['pairs']:,} pairs judged by {pairs['verdicts_from']}: {verdicts}",
        f"  frozen: {pairs['train']:,} preferences to train on, {pairs['held_out']:,} held out by prompt",
    ]


def _sft(facts: Mapping[str, Any]) -> list[str]:
    sft = facts["sft"]
    return [
        "SFT: loss on held-out demonstrations, nats a token",
        f"  before {_pm(sft['loss_before'])}   after {_pm(sft['loss_after'])}   change {_change(sft['difference'])}",
    ]


def _preferences(facts: Mapping[str, Any]) -> list[str]:
    reward, dpo, controls = facts["reward"], facts["dpo"], facts["controls"]
    rows = [["reward model", _pm(reward["accuracy"]), ""]]
    rows += [
        [f"  {'several wrong' if name == 'several' else f'wrong {name}'}", _pm(one), f"{one['n']:,} pairs"]
        for name, one in reward["by_error"].items()
    ]
    rows += [
        ["DPO, implicit reward, before", _pm(dpo["accuracy_before"]), "a tie everywhere"],
        ["DPO, implicit reward, after", _pm(dpo["accuracy_after"]), ""],
        ["ranking by the SFT model's log-prob", _pm(dpo["accuracy_by_sft_log_prob"]), "saw no preferences"],
        ["ranking by the base model's log-prob", _pm(dpo["accuracy_by_base_log_prob"]), ""],
    ]
    rows += [[f"control: {words}", number(controls[name]), ""] for name, words in CONTROLS.items() if name in controls]
    lines = [f"Accuracy on {reward['accuracy']['n']:,} held-out pairs (ties count half)", *_indented(rows)]
    by_log_prob = dpo["accuracy_by_sft_log_prob"]["mean"]
    if by_log_prob is not None and by_log_prob > HIGH_WITHOUT_PREFERENCES:
        lines.append("  Log-prob alone ranks high here, so DPO's accuracy by itself says little.")
    return lines


def _kl(facts: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            SHORT[name],
            f"{number(one['nats_per_sequence'])} ± {number(one['standard_error'])}",
            f"{number(one['nats_per_token'], 4)} a token",
        ]
        for name, one in facts["sampled_kl"].items()
    ]
    return ["Sampled KL to where the run began, k1, nats a sequence", *(_indented(rows) or ["  none was sampled"])]


def _gold(facts: Mapping[str, Any]) -> list[str]:
    gold = facts["gold"]
    names = list(gold["models"])
    parts = list(gold["models"][names[0]]["components"])
    lines = [f"Gold score of answers to {gold['prompts']:,} held-out prompts"]
    for shown in (names[at : at + MODELS_A_TABLE] for at in range(0, len(names), MODELS_A_TABLE)):
        columns = [Column("  "), *(Column(SHORT.get(name, name), right=True) for name in shown)]
        rows = [["  gold score", *(_pm(gold["models"][name]["total"]) for name in shown)]]
        rows += [[f"    {part}", *(_pm(gold["models"][name]["components"][part]) for name in shown)] for part in parts]
        rows.append(["  tokens an answer", *(number(gold["models"][name]["tokens"]["mean"], 1) for name in shown)])
        rows.append(["  distinct words", *(number(gold["models"][name]["distinct_words"]) for name in shown)])
        lines += table_lines(columns, rows)
    for name, one in gold["differences"].items():
        after, _, before = name.partition(" - ")
        lines.append(f"  {SHORT[after]} over {SHORT[before]}: {_change(one)}")
    return [*lines, *(f"  {line}" for line in _not_claimed(facts))]


def _not_claimed(facts: Mapping[str, Any]) -> list[str]:
    """Components of the score that the reward model cannot tell from chance."""
    weak = [
        name for name, one in facts["reward"]["by_error"].items()
        if one["mean"] is not None and one["mean"] - TWO_SIDED * (one["standard_error"] or 0.0) <= CHANCE
    ]  # fmt: skip
    if not weak:
        return []
    return [f"The reward model may be at chance on {', '.join(weak)}:", "what changes there is not its doing."]


def _arena(facts: Mapping[str, Any]) -> list[str]:
    arena, rate = facts["arena"], facts["arena"]["win_rate"]
    return [
        "Arena: DPO against SFT, blind, judged by the sample rule (synthetic)",
        f"  win rate {number(rate['rate'])}, 95 % interval {number(rate['low'])} to {number(rate['high'])}"
        f" ({rate['wins']:,} wins, {rate['losses']:,} losses, {rate['ties']:,} ties)",
        f"  {arena['identical']:,} of the ties are identical answers",
    ]


def _times(facts: Mapping[str, Any]) -> list[str]:
    return [
        "Wall time",
        *_indented([[name, duration(seconds)] for name, seconds in facts["seconds"].items()], right=(1,)),
    ]


def _after(facts: Mapping[str, Any]) -> list[str]:
    return [
        "Everything is kept:",
        f"  workbench --workspace {facts['workspace']} runs ls",
        f"  workbench --workspace {facts['workspace']} arena report {facts['arena']['arena']}",
    ]


def _indented(rows: list[list[str]], right: tuple[int, ...] = ()) -> list[str]:
    """Aligned rows without headings, two spaces in."""
    if not rows:
        return []
    columns = [Column("", right=index in right) for index in range(len(rows[0]))]
    return [f"  {line}" for line in table_lines(columns, rows, 78)[1:]]


def _pm(estimate: Mapping[str, Any]) -> str:
    return f"{number(estimate['mean'])} ± {number(estimate['standard_error'])}"


def _change(difference: Mapping[str, Any]) -> str:
    ratio = difference["in_standard_errors"]
    told = f" ({number(abs(ratio), 1)} s.e.)" if ratio is not None else ""
    return f"{difference['mean']:+.3f} ± {number(difference['standard_error'])}{told}"
