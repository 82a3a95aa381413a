"""`runs watch`: the panels without the app, renewed with few bytes, and a run as lines of JSON."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.run.events import append_event
from engine.run.locks import hold
from engine.run.metrics_log import MetricsWriter
from engine.run.status import Status, write_status
from tests.workbench.run_folders import make_run
from workbench.cli import main
from workbench.live_frame import changes, renew
from workbench.run_frame import FrameLook, RunFrame
from workbench.run_list import find_run
from workbench.run_stream import stream
from workbench.text_wrapping import cells
from workbench.workspace import Workspace


class TestFrame:
    @pytest.mark.parametrize("size", [(80, 24), (120, 30), (160, 48), (40, 10), (61, 17)])
    @pytest.mark.parametrize("plain", [False, True])
    def test_it_has_the_size_that_was_asked_for(self, workspace: Workspace, size: tuple[int, int], plain: bool) -> None:
        make_run(workspace, "1124-dpo-a-k3f", checkpoints=(2, 4), step=40)
        lines = RunFrame(find_run(workspace, "-")).lines(FrameLook(*size, plain=plain))
        assert len(lines) == size[1]
        assert max(map(cells, lines)) <= size[0]
        assert lines[0].startswith("1124-dpo-a-k3f")
        assert "loss, nats" in "".join(lines)
        assert not plain or "".join(lines).isascii()

    def test_pages_go_through_all_panels(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-ppo-a-k3f")
        frame = RunFrame(find_run(workspace, "-"))
        pages = [frame.lines(FrameLook(80, 24, page)) for page in (1, 2, 3, 99)]
        assert "panels 1 of" in pages[0][-1]
        assert pages[0][2:-1] != pages[1][2:-1]
        assert pages[3][-1].startswith(f"panels {pages[0][-1].split()[3]} of"), "beyond the last is the last"

    def test_it_says_what_is_wrong_and_passes_no_escape(self, workspace: Workspace) -> None:
        folder = make_run(workspace, "1124-sft-a-k3f", phase="failed")
        error = {"what": "\x1b[2Jgone\n" + "very " * 60, "remedy": ""}
        write_status(folder, Status(run=folder.id, phase="failed", step=4, error=error, alarm="KL far [red]"))
        lines = RunFrame(find_run(workspace, "-")).lines(FrameLook())
        assert "␛[2J" in lines[1]
        assert lines[3].endswith("…")
        assert lines[4] == "KL far [red]"
        assert len(lines) == 24

    def test_new_points_are_drawn_into_the_same_panels(self, workspace: Workspace) -> None:
        folder = make_run(workspace, "1124-sft-a-k3f")
        frame = RunFrame(find_run(workspace, "-"))
        before = frame.lines(FrameLook())
        writer = MetricsWriter(folder.metrics_path, 1)
        writer.write(5, {"loss": 0.01})
        writer.close()
        after = frame.lines(FrameLook())
        assert after != before
        assert after[1:] == RunFrame(find_run(workspace, "-")).lines(FrameLook())[1:]


def shown(size: tuple[int, int], sent: str) -> list[str]:
    """What a terminal shows that is sent cells, moves of the cursor and ends of lines."""
    rows = [[" "] * size[0] for _ in range(size[1])]
    y = x = 0
    for move, rest in re.findall(r"\x1b\[([0-9;]*[HK])|([^\x1b])", sent):
        if move.endswith("H"):
            y, x = (int(part) - 1 for part in move[:-1].split(";"))
        elif move == "K":
            rows[y][x:] = [" "] * (size[0] - x)
        else:
            rows[y][x] = rest
            x += 1
    return ["".join(row).rstrip() for row in rows]


class TestRenewing:
    FRAMES = st.lists(st.text("ab ⣿", max_size=20).map(str.rstrip), min_size=1, max_size=4)

    @settings(deadline=None, max_examples=40)
    @given(FRAMES, FRAMES)
    def test_what_is_sent_leads_from_one_frame_to_the_next(self, before: list[str], now: list[str]) -> None:
        sent = changes([], before, 20) + changes(before, now, 20)
        assert shown((20, 4), sent) == [*now, *[""] * (4 - len(now))]
        assert changes(now, now, 20) == ""

    def test_a_wide_character_is_sent_with_its_line(self) -> None:
        assert changes(["漢a"], ["漢b"], 20) == "\x1b[1;1H漢b\x1b[K"

    def test_few_bytes_and_the_terminal_is_given_back(self) -> None:
        terminal, numbers = io.StringIO(), iter(range(4))
        frames = [["a" * 79 + str(number)] for number in range(3)]
        renew(lambda *_: frames.pop(0), lambda: next(numbers) == 2, terminal, every_s=0, size=lambda: (80, 24))
        assert terminal.getvalue().endswith("\x1b[1;80H1\x1b[1;80H2\x1b[?25h\x1b[?1049l")

    def test_an_interrupt_gives_it_back_too(self) -> None:
        terminal = io.StringIO()

        def interrupted(width: int, height: int) -> list[str]:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            renew(interrupted, lambda: False, terminal, size=lambda: (80, 24))
        assert terminal.getvalue().endswith("\x1b[?1049l")


class TestStream:
    def test_every_line_and_every_state_once(self, workspace: Workspace) -> None:
        folder = make_run(workspace, "1124-sft-a-k3f", phase="running", step=2)
        run, told = find_run(workspace, "-"), []
        lock = hold(folder.lock_path)
        assert lock is not None

        def tell(line: dict[str, Any]) -> None:
            told.append(line)
            if len(told) == 3:  # its state and two steps; now it goes on from a checkpoint and ends
                writer = MetricsWriter(folder.metrics_path, 2)
                writer.resumed_from(1)
                writer.write(2, {"loss": float("nan")})
                writer.close()
                append_event(folder, "resumed", step=1)
                write_status(folder, Status(run=folder.id, phase="done", step=2, total_steps=2))
                lock.release()

        assert stream(run, tell, poll_s=0) == 0
        assert [line["state"] for line in told if line["kind"] == "state"] == ["running", "done"]
        assert [line["metrics"].get("step") for line in told if line["kind"] == "metrics"] == [1, 2, None, 2]
        assert [line["event"]["kind"] for line in told if line["kind"] == "event"] == ["resumed"]

    def test_a_file_that_was_replaced_is_told_from_its_beginning(self, workspace: Workspace) -> None:
        folder = make_run(workspace, "1124-sft-a-k3f", phase="running", step=3)
        told: list[dict[str, Any]] = []
        lock = hold(folder.lock_path)
        assert lock is not None

        def tell(line: dict[str, Any]) -> None:
            told.append(line)
            if len(told) == 4:
                folder.metrics_path.unlink()
                writer = MetricsWriter(folder.metrics_path, 1)
                writer.write(1, {"loss": 7.0})
                writer.close()
                lock.release()

        stream(find_run(workspace, "-"), tell, poll_s=0)
        kinds = [line["kind"] for line in told]
        assert kinds == ["state", *["metrics"] * 3, "state", "anew", "metrics"]


def test_the_command(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(workspace, "1124-sft-a-k3f")

    def watch(*arguments: str) -> str:
        code = main(["--workspace", str(workspace.root), "runs", "watch", "-", *arguments])
        found = capsys.readouterr()
        return found.out if code == 0 else found.err

    assert len(watch("--once").splitlines()) == 24
    assert len(watch("--once", "--size", "120x30").splitlines()) == 30
    assert "mean_token_accuracy" not in watch("--once", "--all")
    assert "expected columns and lines, such as 80x24" in watch("--once", "--size", "big")
    lines = [json.loads(line) for line in watch("--json").splitlines()]
    assert [line["kind"] for line in lines] == ["state", *["metrics"] * 4]
    assert {line["schema"] for line in lines} == {2}
    assert "loss" in watch(), "in a pipe: lines, and the last frame"
