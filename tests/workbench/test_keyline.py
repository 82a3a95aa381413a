"""The way in for annotators over SSH: the line's quoting, what the restricted program believes and cannot do."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.cli import main
from workbench.errors import NotFound, UsageError
from workbench.keyline import authorized_keys_line, door_command, read_public_key, sudo_lines
from workbench.label_door import PLAIN_TERM, TERMS, allowed_environment
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.workspace import Workspace, init

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 " + "A" * 68 + " alice@laptop"


def make(workspace: Workspace) -> PairSet:
    return create_pairs(workspace, "s", [CandidatePair("q", "yes", "no")], {"dataset": "d"})


def forced_command(line: str) -> str:
    """The command as sshd reads it from the line: up to the first quote without a backslash, which it takes off."""
    found = re.fullmatch(r'restrict,pty,command="((?:[^"\\]|\\.)*)" (.*)', line)
    assert found, line
    return found[1].replace('\\"', '"')


@pytest.mark.parametrize("folder", ["ws", "a folder", "it's $HOME; `x` & *", "ünï\u00a0code"])
def test_the_line_survives_sshd_and_a_shell(tmp_path: Path, folder: str) -> None:
    made = make(init(tmp_path / folder))
    line = authorized_keys_line(made, "alice", KEY)
    assert line.endswith(f" {KEY}")
    command = forced_command(line).replace(
        f"'{sys.executable}'", f"'{sys.executable}' -c 'import sys; print(sys.argv[1:])'"
    )
    assert command != forced_command(line)
    told = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    expected = door_command(made, "alice")
    assert told.strip() == repr(expected[1:])
    assert all(os.path.isabs(word) for word in (expected[0], expected[2], expected[-1]))
    assert expected[1] == "-I"


@pytest.mark.parametrize("folder", ['quo"te', "back\\slash", "line\nend"])
def test_a_path_that_cannot_be_quoted_is_refused(tmp_path: Path, folder: str) -> None:
    made = make(init(tmp_path / folder))
    with pytest.raises(UsageError, match="plainer path"):
        authorized_keys_line(made, "alice")
    with pytest.raises(UsageError, match="annotator"):
        authorized_keys_line(made, "alice; sh")


def test_without_a_key_the_line_says_where_it_goes(workspace: Workspace) -> None:
    assert authorized_keys_line(make(workspace), "alice").endswith(" PUBLIC-KEY-OF-alice")


def test_the_sudo_form_escapes_what_sudoers_would_read(tmp_path: Path) -> None:
    made = make(init(tmp_path / "a, b=c: *"))
    rule, typed = sudo_lines(made, "alice", "al", "owner")
    assert rule.startswith("al ALL=(owner) NOPASSWD: ")
    assert r"a\,\ b\=c\:\ \*" in rule
    assert shlex.split(typed) == ["sudo", "-u", "owner", *door_command(made, "alice")]


def test_only_a_public_key_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "id.pub"
    path.write_text(KEY + "\n")
    assert read_public_key(path) == KEY
    for wrong in ("", "hello", KEY + "\n" + KEY, 'command="sh" ' + KEY, KEY + "\x1b[2J"):
        path.write_text(wrong)
        with pytest.raises(UsageError, match="no public key"):
            read_public_key(path)
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    with pytest.raises(UsageError, match="PRIVATE"):
        read_public_key(path)
    with pytest.raises(NotFound, match="No such file"):
        read_public_key(tmp_path / "none.pub")


def test_the_command(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(workspace)
    key = tmp_path / "id.pub"
    key.write_text(KEY)
    assert main(["pairs", "keyline", "s", "alice", "--key", str(key), "--workspace", str(workspace.root)]) == 0
    told = capsys.readouterr()
    assert told.out == authorized_keys_line(made, "alice", KEY) + "\n"
    assert "sudo -u" in told.err
    assert "not complete" not in told.err
    assert ("This account is root" in told.err) == (os.geteuid() == 0)
    assert main(["pairs", "keyline", "s", "alice", "--workspace", str(workspace.root)]) == 0
    assert "put their public key in the place of PUBLIC-KEY-OF-alice" in capsys.readouterr().err


class TestWhatIsBelieved:
    def test_nothing_but_what_is_listed(self) -> None:
        given = {
            "HOME": "/home/owner", "USER": "owner", "LOGNAME": "owner", "LANG": "de_DE.UTF-8", "TERM": "tmux-256color",
            "SSH_ORIGINAL_COMMAND": "sh", "TEXTUAL_DRIVER": "x:y", "TEXTUAL_PRESS": "q", "WORKBENCH_WORKSPACE": "/w",
            "WORKBENCH_TRACEBACK": "1", "PYTHONSTARTUP": "/x", "LD_PRELOAD": "/x.so", "EDITOR": "vi", "PATH": "/evil",
            "XDG_CONFIG_HOME": "/evil", "SHELL": "/bin/sh", "COLORTERM": "truecolor", "NO_COLOR": "yes",
        }  # fmt: skip
        assert allowed_environment(given) == {
            "HOME": "/home/owner", "USER": "owner", "LOGNAME": "owner", "LANG": "de_DE.UTF-8", "TERM": "tmux-256color",
            "PATH": "/usr/local/bin:/usr/bin:/bin", "COLORTERM": "truecolor", "NO_COLOR": "1",
        }  # fmt: skip

    @pytest.mark.parametrize("term", ["../../etc/passwd", "xterm;sh", "$(sh)", "x" * 10_000, "foo", "\x1b[2J"])
    def test_a_terminal_that_is_not_listed_is_called_a_plain_one(self, term: str) -> None:
        assert allowed_environment({"TERM": term})["TERM"] == PLAIN_TERM
        assert PLAIN_TERM in TERMS

    @pytest.mark.parametrize("lang", ["$(sh)", "../x", "de_DE;x", "", "C" * 99])
    def test_a_language_that_is_none_is_gone(self, lang: str) -> None:
        assert "LANG" not in allowed_environment({"LANG": lang})
        assert "TERM" not in allowed_environment({"TERM": ""})


PROBE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from workbench import label_door
label_door.close_door()
from screens.only_label import forbid_programs
forbid_programs()
import subprocess, socket, ctypes, pty
for name, attempt in {
    "subprocess": lambda: subprocess.run(["true"]),
    "system": lambda: os.system("true"),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "fork": lambda: os.fork(),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "pty": lambda: pty.spawn("true"),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "ctypes": lambda: ctypes.CDLL("libc.so.6"),
}.items():
    try:
        attempt()
        print(name, "was possible")
    except PermissionError:
        print(name, "was refused")
print(sorted(os.environ))
for number in (signal.SIGTSTP, signal.SIGQUIT):
    os.kill(os.getpid(), number)
print("alive", os.umask(0o077) == 0o077)
"""


@pytest.mark.slow
def test_the_process_behind_the_door() -> None:
    given = {
        "TERM": "xterm",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TEXTUAL_LOG": "x",
        "WORKBENCH_TRACEBACK": "1",
        "EVIL": "1",
    }
    call = [sys.executable, "-I", "-c", PROBE, str(ROOT)]
    done = subprocess.run(call, env=given, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if "was" in line] == [
        f"{name} was refused" for name in ("subprocess", "system", "exec", "fork", "spawn", "pty", "connect", "ctypes")
    ]
    assert lines[-2:] == ["['HOME', 'LANG', 'PATH', 'TERM']", "alive True"]


def test_only_needs_who_and_where() -> None:
    call = [sys.executable, "-I", str(ROOT / "workbench" / "label_door.py"), "s"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env={"WORKBENCH_WORKSPACE": "/nowhere"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "--only needs --as WHO and --workspace PATH" in done.stderr


@pytest.mark.slow
def test_the_door_opens_the_workspace_that_it_names() -> None:
    call = [sys.executable, "-I", str(ROOT / "workbench" / "label_door.py"), "s"]
    done = subprocess.run(
        [*call, "--as", "alice", "--workspace", "/nowhere"], capture_output=True, text=True, check=False
    )
    assert "no workspace at /nowhere" in done.stderr
