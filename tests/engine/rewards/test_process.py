"""The child that calls reward functions: what is a score, and what becomes of a function that is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RewardError, StopRequested
from engine.rewards.answers import Answer, FunctionJudge
from engine.rewards.process import LINES_A_CALL, Callee, Limits, RewardProcess

Start = Callable[..., RewardProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[RewardProcess] = []

    def make(source: str, *names: str, time_s: float = 20.0, memory_mb: int = 0, **more: Any) -> RewardProcess:
        file = tmp_path / "judge.py"
        callees = [Callee(name, file, source.encode(), name) for name in names or ("f",)]
        started.append(RewardProcess(callees, Limits(time_s, memory_mb), **more))
        return started[-1]

    yield make
    for one in started:
        one.close()


def told(process: RewardProcess, completions: list[str], number: int = 0, **fields: list[Any]) -> list[float]:
    return process.scores(number, [f"p{i}" for i in range(len(completions))], completions, fields)


def test_scores_of_several_functions_with_fields(start: Start) -> None:
    process = start(
        "def f(prompts, completions, **row):\n"
        "    return [len(p + c) + a for p, c, a in zip(prompts, completions, row['a'])]\n"
        "def g(prompts, completions, b=None, *, c):\n    return (c == 'x' for c in completions)\n",
        "f", "g",
    )  # fmt: skip
    assert told(process, ["x", "yyy"], a=[10, 20]) == [13.0, 25.0]
    assert told(process, ["x", "yyy"], 1, c=[1, 1]) == [1.0, 0.0]
    f, g = process.signatures
    assert (f.takes, f.needs, f.any) == (frozenset(), frozenset(), True)
    assert (g.takes, g.needs, g.any) == ({"b", "c"}, {"c"}, False)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('no such\\nword')", r"raised ValueError: no such word \(line 2\)"),
        ("return [0.5]", "returned 1 scores for 2 completions, expected one for each"),
        ("return 0.5", "returned float 0.5, expected a list of 2 numbers"),
        ("return None", r"returned nothing \(None\), expected a list of 2 numbers"),
        ("return 'ab'", "returned str 'ab', expected a list of 2 numbers"),
        ("return {0: 1.0, 1: 2.0}", "returned dict .*expected a list"),
        ("return [0.5, float('nan')]", "returned nan, expected a finite number"),
        ("return [0.5, float('-inf')]", "returned -inf, expected a finite number"),
        ("return [0.5, '0.5']", "returned str '0.5', expected a number"),
        ("return [0.5, None]", r"returned nothing \(None\), expected a number"),
        ("import sys; sys.exit(3)", "raised SystemExit: 3"),
        ("return x for x in 1", "was loaded, raised SyntaxError"),
    ],
)
def test_what_is_no_score_is_told_and_the_next_call_is_answered(start: Start, body: str, says: str) -> None:
    source = f"def f(prompts, completions):\n    {body}\ndef good(prompts, completions):\n    return [1.0, 2.0]\n"
    with pytest.raises(RewardError, match=says) as caught:
        told(process := start(source, "f", "good"), ["x", "y"])
    assert "reward f (judge.py)" in str(caught.value)
    assert caught.value.row == (1 if "[0.5, " in body else None)
    if "SyntaxError" not in says:
        assert told(process, ["x", "y"], 1) == [1.0, 2.0]


def test_rows_and_completions_are_named_where_a_score_is_none(start: Start) -> None:
    process = start("def f(prompts, completions, reference):\n    return [1.0, float('nan')]\n")
    judge = FunctionJudge(process, 0, "reward f")
    answers = [Answer({"id": f"row-{i}", "prompt": "p", "reference": "r"}, f"said {i}", True) for i in range(2)]
    with pytest.raises(RewardError, match="for row row-1 and the completion 'said 1'"):
        judge.scores(answers)
    with pytest.raises(RewardError, match="needs reference, which the rows of the prompts do not have; they have: id"):
        judge.require_fields([{"id": "1", "prompt": "p", "tags": {"kind": "a"}}])


def test_a_row_is_given_as_columns(start: Start) -> None:
    process = start(
        "def f(prompts, completions, **row):\n    print(sorted(row.items()))\n    return [0.0] * len(prompts)\n"
    )
    rows = [{"id": "1", "prompt": "p", "tags": {"kind": "a", "prompts": "bad"}, "reference": "r"}, {"id": "2"}]
    seen: list[dict[str, Any]] = []
    real = process.scores
    process.scores = lambda *a: (seen.append(a[3]), real(*a))[1]  # type: ignore[method-assign]
    FunctionJudge(process, 0, "f").scores([Answer(row, "x", i == 0) for i, row in enumerate(rows)])
    assert seen == [
        {"id": ["1", "2"], "kind": ["a", None], "reference": ["r", None], "stopped": [True, False]},
    ]  # fmt: skip


class TestPrints:
    def test_they_reach_the_log_escaped_and_never_the_answers(
        self, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        process = start(
            "import os, sys\nprint('loaded')\n"
            "def f(prompts, completions):\n    print('{\"scores\": [9.0]}\\x1b[2J')\n    os.write(1, b'raw\\n')\n"
            "    print('warned', file=sys.stderr)\n    sys.stdin.read()\n    return [1.0]\n"
        )
        assert told(process, ["x"]) == [1.0]
        process.close()
        lines = capfd.readouterr().err.splitlines()
        assert "reward function: loaded" in lines
        assert 'reward function: {"scores": [9.0]}␛[2J' in lines
        assert {"reward function: raw", "reward function: warned"} <= set(lines)

    def test_a_flood_is_cut_and_counted(self, start: Start, capfd: pytest.CaptureFixture[str]) -> None:
        process = start(
            "def f(prompts, completions):\n    for i in range(50_000):\n        print(i)\n    return [1.0]\n"
        )
        assert told(process, ["x"]) == [1.0]
        time_up = time.monotonic() + 20
        while process._log._lines < 50_000 and time.monotonic() < time_up:
            time.sleep(0.01)
        process.close()
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == LINES_A_CALL + 1
        assert lines[-1] == f"reward function: ({50_000 - LINES_A_CALL:,} more lines are left out)"


class TestLateAndDead:
    def test_a_late_function_is_killed_with_its_children_and_tried_once_more(
        self, start: Start, tmp_path: Path
    ) -> None:
        source = (
            "import subprocess, time\n"
            "def f(prompts, completions):\n"
            "    child = subprocess.Popen(['sleep', '600'])\n"
            f"    open({str(tmp_path / 'pids')!r}, 'a').write(f'{{child.pid}}\\n')\n"
            "    time.sleep(600)\n"
        )
        events: list[str] = []
        process = start(source, time_s=1.0, tell=events.append)
        with pytest.raises(RewardError, match=r"reward f \(judge.py\) gave no answer within 1 s, twice.*time_limit_s"):
            told(process, ["x"])
        assert events == ["reward f (judge.py) gave no answer within 1 s: tried once more"]
        pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 2
        time_up = time.monotonic() + 20  # they are killed, and die when they are scheduled
        while any(alive(pid) for pid in pids) and time.monotonic() < time_up:
            time.sleep(0.01)
        assert not any(alive(pid) for pid in pids)

    def test_one_that_dies_once_is_asked_again_and_answers(self, start: Start, tmp_path: Path) -> None:
        mark = tmp_path / "died"
        source = (
            "import os\ndef f(prompts, completions):\n"
            f"    if not os.path.exists({str(mark)!r}):\n"
            f"        open({str(mark)!r}, 'w').close()\n        os.kill(os.getpid(), 9)\n"
            "    return [2.0 for _ in completions]\n"
        )
        events: list[str] = []
        assert told(start(source, tell=events.append), ["x"]) == [2.0]
        assert events == ["reward f (judge.py) was ended by SIGKILL: tried once more"]

    def test_one_that_always_ends_its_process_is_told(self, start: Start) -> None:
        process = start("import os\ndef f(prompts, completions):\n    os._exit(7)\n")
        with pytest.raises(RewardError, match="ended its process with code 7, twice"):
            told(process, ["x"])

    def test_more_memory_than_allowed_is_an_error_of_the_function(self, start: Start) -> None:
        process = start("def f(prompts, completions):\n    return [len(bytearray(1 << 30))]\n", memory_mb=300)
        with pytest.raises(RewardError, match="raised MemoryError"):
            told(process, ["x"])

    def test_a_stop_is_heard_during_a_call(self, start: Start) -> None:
        asked: list[bool] = []

        def check() -> None:
            if asked:
                raise StopRequested("stop requested")

        process = start("import time\ndef f(prompts, completions):\n    time.sleep(600)\n", check=check)
        asked.append(True)
        with pytest.raises(StopRequested):
            told(process, ["x"])

    def test_it_ends_with_a_worker_that_is_killed(self, tmp_path: Path) -> None:
        """Also while a function sleeps, which hears of no closed pipe."""
        (tmp_path / "worker.py").write_text(
            "import sys\nfrom pathlib import Path\nfrom engine.rewards.process import Callee, Limits, RewardProcess\n"
            'source = b\'import time\\ndef f(prompts, completions):\\n    print(1); open("begun", "w")\'\n'
            "source += b'; time.sleep(600)\\n'\n"
            "process = RewardProcess([Callee('f', Path(sys.argv[0]), source, 'f')], Limits(600.0, 0))\n"
            "print(process._child.pid, flush=True)\nprocess.scores(0, [], [], {})\n"
        )
        command = [sys.executable, str(tmp_path / "worker.py")]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as worker:
            assert worker.stdout is not None
            pid = int(worker.stdout.readline())
            while not (tmp_path / "begun").exists():
                assert worker.poll() is None
                time.sleep(0.01)
            worker.kill()
        time_up = time.monotonic() + 20
        while alive(pid) and time.monotonic() < time_up:
            time.sleep(0.01)
        assert not alive(pid)

    def test_it_ends_with_a_process_that_forgets_it(self, start: Start) -> None:
        process = start("def f(prompts, completions):\n    return [0.0]\n")
        assert process._child is not None
        pid = process._child.pid
        assert alive(pid)
        process._end()
        assert not alive(pid)


def test_many_long_texts_pass_the_pipe(start: Start) -> None:
    process = start("def f(prompts, completions):\n    return [float(len(c)) for c in completions]\n")
    assert told(process, ["é" * 100_000] * 30) == [100_000.0] * 30
    many = told(process, ["x"] * 50_000)
    assert (len(many), set(many)) == (50_000, {1.0})


def test_the_order_of_a_set_is_the_same_in_every_child(start: Start) -> None:
    source = "def f(prompts, completions):\n    return [float(hash('word') % 1000)]\n"
    assert told(start(source), ["x"]) == told(start(source), ["x"])


def alive(pid: int) -> bool:
    """Whether a process is there and is not the remains of one."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False
