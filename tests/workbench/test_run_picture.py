"""Pictures hold every curve and hide no spike; tables hold exact numbers; a comparison says what may be compared."""

from __future__ import annotations

import csv
import json
import math
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from engine.run.metrics_log import MetricsWriter
from tests.workbench.run_folders import make_run
from tests.workbench.test_foreign_logs import EVENTS
from tests.workbench.test_several_runs import ONE, OTHER, TWO, write_run
from workbench.cli import main
from workbench.curve_panels import Panel, Reference, Trace
from workbench.curves import Event, Points
from workbench.panel_shapes import BAD, Filled, PanelShapes, Stroke, Words
from workbench.plot_canvas import PALETTE
from workbench.plot_scene import Scene
from workbench.run_picture import dashed
from workbench.workspace import Workspace

PANEL = Panel(
    "loss<&", (Trace("loss", "train"), Trace("b", "other", "dashes"), Trace("eval_loss", "eval", "points")),
    references=(Reference(0.5, "half"),),
)  # fmt: skip


def points(values: list[float]) -> Points:
    return Points(array("q", range(len(values))), array("d", values))


def run_command(workspace: Workspace, *arguments: str) -> int:
    return main(["--workspace", str(workspace.root), "runs", *arguments])


class TestShapes:
    def shapes(self, **metrics: list[float]) -> list[Any]:
        scene = Scene(PANEL, 0, 99_999, (Event(5, "alarm"), Event(9, "checkpoint")))
        return list(PanelShapes(scene, {name: points(v) for name, v in metrics.items()}, 0, 0, 480, 280).all())

    @pytest.mark.parametrize("at", [0, 31_337, 99_999])
    def test_a_spike_reaches_the_top(self, at: int) -> None:
        values = [0.0] * 100_000
        values[at] = 1.0
        curves = [shape for shape in self.shapes(loss=values) if isinstance(shape, Stroke) and len(shape.points) > 100]
        assert min(y for shape in curves for _, y in shape.points) == pytest.approx(44.0)

    def test_a_gap_is_marked_and_not_bridged(self) -> None:
        values = [1.0] * 40_000 + [math.nan] * 20_000 + [2.0] * 40_000
        found = [shape for shape in self.shapes(loss=values) if isinstance(shape, Stroke)]
        curves = [shape for shape in found if len(shape.points) > 100]
        assert len(curves) == 2
        assert max(x for x, _ in curves[0].points) + 50 < min(x for x, _ in curves[1].points)
        assert sum(shape.colour == BAD and shape.width == 1.5 for shape in found) > 50, "marks on the axis"

    def test_curves_differ_without_colour_and_say_what_they_are(self) -> None:
        found = self.shapes(loss=[0.1, 0.2], b=[0.9, 0.3], eval_loss=[0.4])
        assert len({shape.dash for shape in found if isinstance(shape, Stroke) and len(shape.points) == 2}) >= 3
        assert sum(isinstance(shape, Filled) for shape in found) >= 2
        words = [shape.text for shape in found if isinstance(shape, Words)]
        assert {"loss<&", "train 0.200", "other 0.300", "eval 0.400", "half", "step 99,999"} <= set(words)

    def test_a_dashed_line_keeps_its_length(self) -> None:
        parts = dashed(Stroke(((0, 0), (30, 0), (30, 40)), "", 1, (7, 3)))
        lengths = [sum(math.dist(a, b) for a, b in pairwise(part)) for part in parts]
        assert lengths == pytest.approx([7] * 7)
        assert len(dashed(Stroke(((0, 0), (1, 1)), ""))) == 1


class TestFiles:
    def test_an_svg_of_all_panels_and_of_one(self, workspace: Workspace, tmp_path: Path) -> None:
        make_run(workspace, "1124-dpo-a-k3f", checkpoints=(2,))
        assert run_command(workspace, "curves", "-", "--to", str(tmp_path / "all.svg")) == 0
        assert run_command(workspace, "curves", "-", "--to", str(tmp_path / "one.svg"), "--panel", "loss") == 0
        texts = {}
        for name in ("all", "one"):
            tree = ElementTree.fromstring((tmp_path / f"{name}.svg").read_text())
            texts[name] = [element.text for element in tree.iter() if element.tag.endswith("text")]
        assert "loss, nats" in texts["one"]
        assert "sampled KL to the reference, k1, nats/seq" not in texts["one"]
        assert "sampled KL to the reference, k1, nats/seq" in texts["all"]
        assert any("1124-dpo-a-k3f  done" in str(text) for text in texts["one"])

    def test_several_runs_in_one_picture_look_as_on_the_screen(self, workspace: Workspace, tmp_path: Path) -> None:
        write_run(workspace, ONE, seed=1)
        write_run(workspace, TWO, seed=2)
        write_run(workspace, OTHER, lr=3e-5, eval_sha="f" * 64)
        target = tmp_path / "a.svg"
        panels = ["--panel", "loss", "--panel", "eval_loss", "--panel", "kl/policy_reference_nats_per_sequence"]
        assert run_command(workspace, "curves", ONE, TWO, OTHER, "--to", str(target), *panels) == 0
        tree = ElementTree.fromstring(target.read_text())
        texts = [str(element.text) for element in tree.iter() if element.tag.endswith("text")]
        assert f"{ONE} as the mean of 2 seeds (baseline)  lr=1e-05 eval_sha256=eeeeeeeeeeee" in texts
        assert f"{OTHER}  lr=3e-05 seed=1 eval_sha256=ffffffffffff" in texts
        assert any("held-out values are not comparable" in text for text in texts)
        assert sum(text.startswith("c≠ ") for text in texts) == 1, "held-out loss on other data"
        assert {"a", "c"} < set(texts)
        assert not {"b", TWO} & set(texts)
        lines = [element.attrib for element in tree.iter() if element.tag.endswith("polyline")]
        looks = {(line["stroke"], line.get("stroke-dasharray", "")) for line in lines if line["stroke-width"] != "1"}
        assert {(PALETTE[0], ""), (PALETTE[2], "2 3")} <= looks, "colour and line of run a, and of run c"

    def test_a_png_is_the_same_picture(self, workspace: Workspace, tmp_path: Path) -> None:
        image = pytest.importorskip("PIL.Image", reason="Pillow is the extra `pictures`")
        make_run(workspace, "1124-dpo-a-k3f")
        assert run_command(workspace, "curves", "-", "--to", str(tmp_path / "a.png"), "--panel", "loss") == 0
        with image.open(tmp_path / "a.png") as picture:
            assert picture.size == (960, 624)
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
        assert (0x00, 0x72, 0xB2) in colours, "the curve"

    def test_a_table_is_exact(self, workspace: Workspace, tmp_path: Path) -> None:
        folder = make_run(workspace, "1124-sft-a-k3f", step=0)
        writer = MetricsWriter(folder.metrics_path, 1)
        writer.write(1, {"loss": 0.1 + 0.2, "eval_loss": math.inf})
        writer.write(2, {"loss": 1e-300, "other": 1.0})
        writer.close()
        make_run(workspace, "1124-sft-b-k3f", step=1)
        command = ["curves", "1124-sft-a", "1124-sft-b", "--to", str(tmp_path / "t.csv"), "--metric", "*loss"]
        assert run_command(workspace, *command) == 0
        rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
        assert [row["run"] for row in rows] == ["1124-sft-a-k3f"] * 2 + ["1124-sft-b-k3f"]
        assert float(rows[0]["loss"]) == 0.1 + 0.2
        assert (rows[0]["eval_loss"], rows[1]["eval_loss"]) == ("inf", "")
        assert float(rows[1]["loss"]) == 1e-300
        assert "other" not in rows[0]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["a.gif"], "the ending says what is written: .svg, .png, .csv"),
            (["there.svg"], "exists; nothing is overwritten"),
            (["a.svg", "--panel", "lost"], "no panel 'lost'. There are: loss, "),
            (["a.csv", "--metric", "lost*"], "no metric 'lost*' in 1124-sft-a-k3f. There are: "),
            (["a.csv", "--panel", "loss"], "--panel is for pictures"),
            (["no/a.svg"], "could not finish writing a.svg"),
        ],
    )
    def test_what_cannot_be_written_says_why(
        self, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
    ) -> None:
        make_run(workspace, "1124-sft-a-k3f")
        (tmp_path / "there.svg").touch()
        assert run_command(workspace, "curves", "-", "--to", str(tmp_path / arguments[0]), *arguments[1:]) != 0
        assert words in capsys.readouterr().err


def test_diff(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(workspace, "1124-sft-a-k3f", step=4)
    make_run(workspace, "1124-sft-b-k3f", step=8, adapter_kind="full")
    run_command(workspace, "import", str(EVENTS))
    capsys.readouterr()
    assert run_command(workspace, "diff", "1124-sft-a", "1124-sft-b", "foreign_logs") == 0
    told = capsys.readouterr()
    assert "adapter.kind lora full –" in " ".join(told.out.split())
    (loss,) = [line.split() for line in told.out.splitlines() if line.startswith("loss,")]
    assert loss[2:8] == ["0.250", "0.250", "4", "0.125", "0.125*", "8"]
    assert loss[9].endswith("!"), "another program's, by nobody knows which objective"
    assert "! not comparable with run 1: another objective" in told.err
    assert run_command(workspace, "diff", "1124-sft-a", "1124-sft-b", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"][0]["key"] == "adapter.kind"
    assert run_command(workspace, "diff", "1124-sft-a", "1124-sft-a") == 2
