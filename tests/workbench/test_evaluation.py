"""What is made of the engine's rows: losses per token, accuracies with ties, clusters that follow the data."""

from __future__ import annotations

import pytest

from workbench.child_programs import run_program
from workbench.errors import WorkbenchError
from workbench.evaluation import Measured, accuracy, clusters_of, margins_of, token_loss, token_loss_difference


def losses(**rows: tuple[float, float]) -> Measured:
    return Measured({name: {"nll": nll, "tokens": tokens} for name, (nll, tokens) in rows.items()}, {})


def test_loss_is_per_token_and_its_change_is_paired() -> None:
    before, after = losses(x=(6.0, 2.0), y=(2.0, 2.0)), losses(x=(5.0, 2.0), y=(1.0, 2.0))
    clusters = {"x": "x", "y": "y"}
    assert token_loss(before, clusters).mean == 2.0
    change = token_loss_difference(before, after, clusters)
    assert (change.mean, change.standard_error) == (-0.5, 0.0)


def test_accuracy_counts_ties_half_and_clusters() -> None:
    measured = Measured({n: {"chosen": c, "rejected": 1.0} for n, c in (("x", 2.0), ("y", 1.0), ("z", 0.0))}, {})
    found = accuracy(margins_of(measured), {"x": "one", "y": "one", "z": "two"})
    assert (found.mean, found.n, found.clusters) == (0.5, 3, 2)


def test_clusters_are_combinations_else_prompts_else_rows() -> None:
    rows = [
        {"id": "1", "prompt": "q", "tags": {"combination": "c"}},
        {"id": "2", "prompt": "q", "tags": {}, "group": "g"},
        {"id": "3", "prompt": "q"},
        {"id": "4", "prompt": "q"},
        {"id": "5", "text": "t"},
    ]
    found = clusters_of(rows)
    assert found["1"] == "combination c"
    assert found["2"] == "group g"
    assert found["3"] == found["4"]
    assert found["5"] == "group 5"


class TestChildren:
    def test_a_child_that_fails_says_its_last_line(self) -> None:
        with pytest.raises(WorkbenchError, match=r"^measuring: .*nothing\.json"):
            run_program("engine.generate", ["/nothing.json"], what="measuring", quiet=True)

    def test_a_module_that_is_not_there(self) -> None:
        with pytest.raises(WorkbenchError, match="No module named"):
            run_program("engine.no_such_program", [], what="trying", quiet=True)

    def test_the_last_line_of_json_is_the_result(self) -> None:
        found = run_program("workbench.cli", ["--version"], what="trying", quiet=True)
        assert found == {}  # what is no JSON object is left alone
