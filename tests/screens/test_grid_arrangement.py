"""The columns of a grid: hidden, moved, frozen, made wider, and all back again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from screens.app import WorkbenchApp
from screens.grid import Grid
from screens.grid_arrangement import Arrangement
from tests.screens.driving import SIZE, check_golden, drive, sees, text_of, until
from workbench.dataset_store import add_dataset
from workbench.dataset_window import WindowColumn
from workbench.workspace import init

NAMES = ("prompt", "completion", "source", "score", "writer", "checked", "place")


def _arranged(room: int = 60) -> Arrangement:
    made = Arrangement([WindowColumn(name, "VARCHAR") for name in NAMES], [tuple(name * 4 for name in NAMES)])
    made.lay_out(room)
    return made


def _line(made: Arrangement, first: int, room: int = 60) -> list[str]:
    return [made.column(place).name for place, _ in made.on_line(first, room)]


def test_frozen_columns_stay_and_the_others_go_by() -> None:
    made = _arranged()
    made.freeze(0)
    for place in range(len(NAMES)):
        first = made.first_to_show(0, place, 60)
        line = _line(made, first)
        assert line[0] == "prompt"
        assert NAMES[place] in line
        assert len(line) == len(set(line))
    made.freeze(0)
    assert made.frozen == 0


def test_the_last_column_cannot_be_hidden_and_reset_brings_all_back() -> None:
    made = _arranged()
    made.freeze(1)
    place = 3
    for _ in range(20):
        place = made.hide(place)
        made.lay_out(60)
        assert 0 <= place < len(made.order)
        assert made.frozen <= len(made.order)
    assert made.hidden == len(NAMES) - 1
    name = made.column(place).name
    place = made.reset(place)
    assert made.column(place).name == name
    assert (made.hidden, made.frozen) == (0, 0)


def test_a_column_that_moves_takes_its_cells_and_its_width() -> None:
    made = _arranged()
    made.widen(2, 8)
    made.lay_out(60)
    wide = made.widths[2]
    assert made.move(2, 1) == 3
    made.lay_out(200)
    assert made.widths[3] == wide
    assert made.order == [0, 1, 3, 2, 4, 5, 6]
    assert made.move(0, -1) == 0


@pytest.mark.parametrize("size", [SIZE])
def test_by_keys(tmp_path: Path, size: tuple[int, int]) -> None:
    workspace = init(tmp_path / "ws")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({name: f"{name} {n}" for name in NAMES}) + "\n" for n in range(30)))
    add_dataset(workspace, file, "rows")

    async def script(app: WorkbenchApp, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "30 rows")
        grid = app.screen.query_one(Grid)
        await pilot.press("vertical_line", "l", "minus", "L")
        assert grid.column_name == "source"
        await until(pilot, lambda: "completion" not in text_of(app).splitlines()[1])
        await pilot.press("greater_than_sign", "l", "l", "l")
        await until(pilot, lambda: text_of(app).splitlines()[1].split()[:2] == ["◂", "prompt"])
        assert "place 0" in text_of(app)
        await check_golden("grid-arranged", pilot)
        await pilot.press("equals_sign")
        await until(pilot, lambda: grid._arranged.hidden == 0)
        assert grid.column_name == "place"

    drive(script, workspace, size=size, station="inspect", subject="rows")
