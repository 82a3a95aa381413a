"""The title of a panel: what is left out first where there is little room."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from workbench.curve_panels import Panel
from workbench.plot_title import title_parts

OF_SOURCES = Panel("eval_loss by source", (), "nats", "eval_loss", by_name=True)
VALUES = [("line", "demonstrations", "0.310"), ("dashes", "alpaca", "10.78")]


@pytest.mark.parametrize(
    ("width", "title", "legend"),
    [
        (70, "eval_loss by source, nats", "─demonstrations 0.310  ┄alpaca 10.78"),
        (50, "eval_loss", "─demonstrations 0.310  ┄alpaca 10.78"),
        (40, "eval_loss", "─demon… 0.310  ┄alpaca 10.78"),
        (34, "eval_loss", "─de… 0.310  ┄al… 10.78"),
    ],
)
def test_names_that_tell_curves_apart_are_cut_before_they_are_left_out(width: int, title: str, legend: str) -> None:
    found = title_parts(OF_SOURCES, ", nats", VALUES, width, plain=False)
    assert found == (title, legend)
    assert cell_len("".join(found)) + 2 < width


def test_a_value_of_several_runs_always_says_whose_it_is() -> None:
    panel = Panel("sampled KL to the reference, k1", (), short_title="KL to ref k1")
    three = [(letter, "", f"0.{number}757943") for number, letter in enumerate("abc")]
    _, few = title_parts(panel, ", nats/seq", three, 38, plain=False)
    assert few == "a0.0757943", "the first of three, where no more fit"
    _, alone = title_parts(panel, "", [("c", "", "1.9")], 60, plain=False)
    assert alone == "c1.9", "one run of several has this metric"
    _, of_one_run = title_parts(panel, "", [("line", "train", "1.9")], 60, plain=False)
    assert of_one_run == "1.9"
