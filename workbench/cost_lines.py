"""What a run would cost in a few short lines, for where there is no room for all that a dry run says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.left_out import left_out_words
from workbench.run_cost import activation_words
from workbench.run_preview import device_words, each_process, megabytes
from workbench.run_sources import shares_line
from workbench.terminal_output import duration


def cost_lines(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run would cost, in three short lines; a fourth where it has to save memory by working more.

    Of several sources the shares stand in the place of the number of rows.
    """
    rows = f"{facts['train_rows']:,} rows, {facts['eval_rows']:,} held out"
    what = shares_line(facts["sources"]) if "sources" in facts else rows
    first = f"{what} · {facts['steps']:,} steps on {device_words(facts)}"
    if "seconds_estimate" in facts:
        first += f", about {duration(facts['seconds_estimate'])}" if facts["seconds_measured"] else _guess(facts)
    tokens = f"about {facts['tokens_estimate']:,} tokens, {facts['tokens_a_row_estimate']:,} a row"
    if facts["cut_at_max_length_estimate"] > 0.01:
        tokens += f"; {100 * facts['cut_at_max_length_estimate']:.0f} % are cut"
    if lost := sum(facts["sample"]["dropped"].values()):
        tokens += f"; {lost:,} of {facts['sample']['rows']:,} are dropped"
    if facts["left_out"]:
        tokens += f"; left out: {left_out_words(facts['left_out'])}"
    if "memory_bytes_estimate" not in facts:
        return first, tokens, f"{facts['free_megabytes']:,} MB of disk free"
    needs = (
        f"estimates: memory {megabytes(facts['memory_bytes_estimate'])}{each_process(facts)}, disk "
        f"{megabytes(facts['disk_bytes_estimate'])} of {facts['free_megabytes']:,} MB free"
    )
    if not facts["activation_checkpointing"]:
        return first, tokens, needs
    return first, tokens, needs, f"activations {activation_words(facts)}"


def _guess(facts: Mapping[str, Any]) -> str:
    low, high = facts["seconds_range"]
    return f"; time not known, a guess: {duration(low)} to {duration(high)}"
