"""What a run would cost, or what is wrong with it, as blocks of text beside the launch form.

Owns the words at both widths: four lines where it is narrow, everything where it is wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from screens.text_view import Block
from workbench.cost_lines import cost_lines
from workbench.run_preview import dry_run_fields

NOT_SHOWN = ("run", "method", "model", "rewards", "would write")
"""They stand in the form, or are drawn anew when the run is made."""
FAULTS_WHERE_NARROW = 2


def cost_blocks(facts: Mapping[str, Any], problems: Mapping[str, str], *, fetched: bool, narrow: bool) -> list[Block]:
    """`facts` of a dry run, empty while they are reckoned; `problems` go before them, since they forbid the start."""
    if problems:
        shown = list(problems.items())[: FAULTS_WHERE_NARROW if narrow else None]
        return [Block(f"▲ {key}: {problem}" if key else f"▲ {problem}", "bad") for key, problem in shown]
    if fetched:
        return [Block("The model is fetched or converted at the start; its cost is known then.", "faint")]
    if not facts:
        return [Block("reckoning what it costs …", "faint")]
    doubts = [Block(f"▲ {doubt}", "bad") for doubt in facts.get("doubts", ())]
    if narrow:
        return [*doubts, *(Block(line) for line in cost_lines(facts))]
    blocks = [*doubts, *[Block("") for _ in doubts[:1]], Block("what it would cost", "title")]
    for name, value in dry_run_fields(facts).items():
        if name not in NOT_SHOWN:
            blocks += [Block(""), Block(name, "faint"), Block(value)]
    return blocks
