"""The command line: which exit code and which one line a person gets, and that nothing raw reaches a terminal."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench import command_runs
from workbench.cli import COMMANDS, main
from workbench.pair_sets import CandidatePair, create_pairs
from workbench.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of one command."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


class TestWithoutACommand:
    def test_it_exits_2_and_names_the_commands(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = run(capsys)
        assert code == 2
        assert out == ""
        assert all(f"  {name} " in err for name in COMMANDS)
        assert all(len(line) <= 110 for line in err.splitlines())

    def test_help_and_version_are_data(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "--help")[0] == 0
        code, out, _ = run(capsys, "--version")
        assert code == 0
        assert out.startswith("workbench ")


class TestTheApp:
    def test_without_a_terminal_it_is_refused_before_anything_is_drawn(
        self, capsys: pytest.CaptureFixture[str], workspace: Workspace
    ) -> None:
        create_pairs(workspace, "p1", [CandidatePair("question", "yes", "no")], {})
        code, out, err = run(capsys, "--workspace", str(workspace.root), "label", "p1", "--as", "alice")
        assert (code, out) == (2, "")
        assert "the app needs a terminal" in err
        assert "\x1b" not in err

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["label", "nothing"], 1, "no pair set named nothing"),
            (["label", "arena/nothing"], 1, "no arena named nothing"),
            (["label", "p1", "--as", "../x"], 2, "cannot name an annotator"),
            (["--no-mouse"], 2, "Commands"),
        ],
    )
    def test_what_it_is_opened_at_must_exist(
        self, capsys: pytest.CaptureFixture[str], workspace: Workspace, arguments: list[str], code: int, said: str
    ) -> None:
        found, out, err = run(capsys, "--workspace", str(workspace.root), *arguments)
        assert (found, out) == (code, "")
        assert said in err


class TestWrongUse:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["trian"], "Did you mean train?"),
            (["--bogus"], "no option '--bogus'"),
            (["data"], "workbench data --help"),
            (["data", "add"], "SRC"),
            (["runs", "show", "--bogus", "x"], "--bogus"),
            (["--workspace"], "needs a PATH"),
            (["pairs", "make", "n", "--from", "d", "--limit", "5"], "--limit goes with --prompts"),
            (["pairs", "make", "n", "--prompts", "d", "--temperature", "hot"], "a number, 0 or more"),
            (["train", "gppo"], "invalid choice"),
            (["train", "grop"], "(did you mean grpo?). See: workbench train --help"),
            (["runs", "resum", "x"], "(did you mean resume?)"),
            (["train", "sft", "--device", "gpu"], "'cuda'). See"),
        ],
    )
    def test_it_is_one_line_and_exit_code_2(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
    ) -> None:
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert err.startswith("workbench: ")
        assert said in err

    def test_what_was_typed_is_made_safe(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, _, err = run(capsys, "\x1b]0;title\x07\u202e")
        assert "\x1b" not in err
        assert "\u202e" not in err

    @pytest.mark.parametrize("command", sorted(COMMANDS))
    def test_every_command_has_a_help_page(self, capsys: pytest.CaptureFixture[str], command: str) -> None:
        code, out, err = run(capsys, command, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: workbench {command}")


class TestFailures:
    def fail_with(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def action(_: object) -> int:
            raise error

        monkeypatch.setattr(command_runs, "run_ls", action)

    def test_ctrl_c_is_130(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_with(monkeypatch, KeyboardInterrupt())
        assert run(capsys, "runs", "ls")[0] == 130

    def test_a_full_disk_is_named(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_with(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file"))
        code, _, err = run(capsys, "runs", "ls")
        assert code == 1
        assert "no space left" in err
        assert "MB free" in err

    def test_a_fault_of_the_program_is_one_line(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fail_with(monkeypatch, RuntimeError("two\nlines \x1b[2J"))
        code, _, err = run(capsys, "runs", "ls")
        assert code == 1
        assert err.count("\n") == 1
        assert "a fault in this program: RuntimeError: two lines" in err
        assert "\x1b" not in err

    def test_a_closed_pipe_is_quiet(self, workspace: Workspace) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-P", "-m", "workbench.cli", "--help"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with os.fdopen(writing, "wb") as closed:
            ended = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, env=environment, check=False)
        assert (ended.returncode, ended.stderr) == (141, b"")

    def test_no_workspace_says_how_to_make_one(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("WORKBENCH_WORKSPACE", raising=False)
        code, _, err = run(capsys, "runs", "ls")
        assert code == 1
        assert "workbench init" in err


class TestTheLoopInCommands:
    """Files in, pairs judged, preferences out: what a person types, and what a script reads."""

    @pytest.fixture
    def typed(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., str]:
        monkeypatch.setenv("WORKBENCH_WORKSPACE", str(workspace.root))

        def type_(*arguments: str) -> str:
            code, out, err = run(capsys, *arguments)
            assert code == 0, err
            return out

        return type_

    def test_init(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        code, out, err = run(capsys, "init", str(tmp_path / "new"))
        assert (code, out.strip()) == (0, str(tmp_path / "new"))
        assert "WORKBENCH_WORKSPACE" in err
        assert run(capsys, "init", str(tmp_path / "new"))[0] == 1

    def test_from_a_file_to_a_preference_set(self, typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "two.jsonl"
        rows = [{"prompt": f"Question {n}?", "a": f"first {n}", "b": f"second {n}\x1b[2J"} for n in range(6)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert "6 rows, answers" in typed("data", "add", str(file))
        assert json.loads(typed("data", "ls", "--json"))["datasets"][0]["shape"] == "answers"
        shown = typed("data", "show", "two")
        assert "\x1b" not in shown
        first = json.loads(typed("data", "show", "two", "--json"))["first_rows"][0]
        assert first["b"][0]["content"].endswith("\x1b[2J")
        typed("pairs", "make", "p", "--from", "two")
        pairs = json.loads(typed("pairs", "show", "p", "--rows", "9", "--json"))["pairs"]
        assert "source_a" not in pairs[0]  # blind
        for pair in pairs[:4]:
            typed("pairs", "judge", "p", "--pair", pair["id"], "--verdict", "a", "--as", "eva")
        given = ("--verdict", "both-bad", "--as", "eva", "--comment", "no")
        typed("pairs", "judge", "p", "--pair", pairs[4]["id"], *given)
        assert "undone" in typed("pairs", "judge", "p", "--pair", pairs[0]["id"], "--undo", "--as", "eva")
        assert len(json.loads(typed("pairs", "show", "p", "--open", "--json"))["pairs"]) == 2
        assert json.loads(typed("pairs", "status", "p", "--json"))["status"]["verdicts"] == {"a": 3, "both_bad": 1}
        assert "held out" in typed("prefs", "freeze", "p", "--to", "q", "--eval-share", "0.3")
        exported = [json.loads(line) for line in typed("prefs", "export", "q").splitlines()]
        assert len(exported) == 3
        assert set(exported[0]) == {"prompt", "chosen", "rejected"}
        assert run(capsys, "prefs", "freeze", "p", "--to", "q")[0] == 1  # occupied
        assert run(capsys, "data", "show", "q")[0] == 2

    def test_the_sample_rule_says_that_it_is_synthetic(self, typed) -> None:
        from sample_data import files

        typed("data", "add", str(files()["heldout_pairs"]), "--name", "h")
        typed("pairs", "make", "h", "--from", "h")
        assert "synthetic" in typed("pairs", "judge", "h", "--rule", "sample")
        assert "synthetic" in typed("pairs", "status", "h")

    def test_a_verdict_needs_a_pair_and_a_name(self, capsys: pytest.CaptureFixture[str], typed, tmp_path: Path) -> None:
        file = tmp_path / "two.jsonl"
        file.write_text(json.dumps({"prompt": "q", "a": "x", "b": "y"}) + "\n")
        typed("data", "add", str(file))
        typed("pairs", "make", "p", "--from", "two")
        code, _, err = run(capsys, "pairs", "judge", "p", "--verdict", "a")
        assert code == 2
        assert "--pair ID and --as WHO" in err

    def test_hints_name_the_verb_and_export_takes_a_format(
        self, capsys: pytest.CaptureFixture[str], typed, tmp_path: Path
    ) -> None:
        code, _, err = run(capsys, "prefs", "export", "q", "--fromat", "jsonl")
        assert (code, "See: workbench prefs export --help" in err) == (2, True)
        rows = [{"prompt": f"q{n}", "chosen": "x", "rejected": "y"} for n in range(4)]
        (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        typed("data", "add", str(tmp_path / "two.jsonl"))
        typed("pairs", "make", "p", "--from", "two")
        typed("prefs", "freeze", "p", "--to", "q")
        typed("prefs", "export", "q", "--to", str(tmp_path / "out.data"), "--format", "jsonl")
        assert len((tmp_path / "out.data").read_text().splitlines()) == 4
        assert run(capsys, "prefs", "export", "q", "--format", "parquet")[0] == 2

    def test_the_sample_rule_is_not_offered_for_other_data(
        self, capsys: pytest.CaptureFixture[str], typed, tmp_path: Path
    ) -> None:
        from sample_data import files

        (tmp_path / "two.jsonl").write_text(json.dumps({"prompt": "q", "a": "x", "b": "y"}) + "\n")
        typed("data", "add", str(tmp_path / "two.jsonl"), str(files()["pairs"]))
        code, _, err = run(capsys, "pairs", "make", "p", "--from", "two")
        assert (code, "--rule sample" in err) == (0, False)
        code, _, err = run(capsys, "pairs", "make", "s", "--from", "pairs")
        assert (code, "--rule sample" in err) == (0, True)
        code, _, err = run(capsys, "pairs", "judge", "p", "--rule", "sample")
        assert (code, "--annotators WHO" in err) == (0, True)
        code, _, err = run(capsys, "eval", "sample", "--on", "two", "--split", "all")
        assert (code, "--split is ignored" in err, "workbench pairs make" in err) == (2, True, True)

    def test_one_pair_is_shown_with_its_verdicts(self, typed, tmp_path: Path) -> None:
        (tmp_path / "two.jsonl").write_text(json.dumps({"prompt": "q", "a": "x", "b": "y"}) + "\n")
        typed("data", "add", str(tmp_path / "two.jsonl"))
        typed("pairs", "make", "p", "--from", "two")
        [pair] = json.loads(typed("pairs", "show", "p", "--json"))["pairs"]
        typed("pairs", "judge", "p", "--pair", pair["id"], "--verdict", "a", "--as", "eva", "--comment", "clear")
        assert "eva: a better (clear)" in typed("pairs", "show", "p", "--pair", pair["id"])
        assert "eva" not in typed("pairs", "show", "p")
        [shown] = json.loads(typed("pairs", "show", "p", "--pair", pair["id"], "--json"))["pairs"]
        assert [one["comment"] for one in shown["verdicts"]] == ["clear"]
