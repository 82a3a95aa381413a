"""What stands beside the launch form: what speaks against a start comes before its cost, at both widths."""

from __future__ import annotations

from typing import Any

import pytest

from screens.launch_cost import cost_blocks

FACTS: dict[str, Any] = {
    "run": "1124-ppo-a-k3f", "method": "ppo", "model": "sample", "device": "cpu", "processes": 1, "data": ["questions"],
    "train_rows": 40, "eval_rows": 10, "steps": 5, "tokens_estimate": 900, "tokens_a_row_estimate": 30,
    "cut_at_max_length_estimate": 0.0, "sample": {"dropped": {}, "rows": 40}, "would_write": "runs/x",
    "examples_bytes": 4000, "free_megabytes": 900, "sources": (), "left_out": {},
}  # fmt: skip


@pytest.mark.parametrize("narrow", [True, False])
def test_a_doubt_comes_first_and_forbids_nothing(narrow: bool) -> None:
    plain = cost_blocks(FACTS, {}, fetched=False, narrow=narrow)
    doubted = cost_blocks({**FACTS, "doubts": ["it may be at chance"]}, {}, fetched=False, narrow=narrow)
    assert (doubted[0].text, doubted[0].style) == ("▲ it may be at chance", "bad")
    assert [block.text for block in doubted if block.text][1:] == [block.text for block in plain if block.text]
