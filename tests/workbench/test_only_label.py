"""The restricted program behind a real sshd on the loopback address: over 50 ways out, none of which leads anywhere.

The server is as permissive as it can be (forwarding, agents, tunnels, variables of every kind), so that what holds is
the line that `pairs keyline` prints and the program behind it. After each attempt four things are looked at: no canary
file was made, no marker that only a shell could have computed and no word of the owner's secret came back, and no
process but sshd's and ours descends from the server. At the end the workspace is as it was, but for annotators' files.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.screens.pty_terminal import PtyTerminal
from workbench.keyline import authorized_keys_line, read_public_key
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.workspace import init

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("sshd", "ssh", "ssh-keygen"))) and not Path("/usr/sbin/sshd").exists(),
        reason="no sshd here (apt-get install openssh-server): the escape attempts were not made",
    ),
]
SECRET = "the-owner-s-secret-7319"
MARKER = "ESC42APED"
"""What `echo ESC$((40+2))APED` prints; never what it is typed as."""
ALIVE = "blind"
LEAVES = "Leave the workbench?"
OWN_FOLDERS = ("judgments", "claims", "drafts")


@dataclass
class Server:
    """An sshd on the loopback address with one key, alice's, and what escapes would leave."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    made: PairSet
    attempts: list[str] = field(default_factory=list)

    @property
    def canaries(self) -> Path:
        return self.folder / "canaries"

    @property
    def escape(self) -> str:
        """A shell command that leaves every trace that is looked for."""
        return f"touch {self.canaries}/x; cat {self.folder}/secret; echo ESC$((40+2))APED"

    def ssh(self, *arguments: str) -> list[str]:
        """The client's command, with nothing of this machine's settings."""
        quiet = ["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        quiet += ["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "EscapeChar=none"]
        key = ["-i", str(self.folder / "alice"), "-p", str(self.port)]
        options, command = _split(arguments)
        return ["ssh", *quiet, *key, *options, "--", f"{getpass.getuser()}@127.0.0.1", *command]

    def check(self, what: str, said: bytes) -> None:
        """Count one attempt, and look for every trace."""
        self.attempts.append(what)
        assert list(self.canaries.iterdir()) == [], f"{what}: a file was made"
        for trace in (MARKER, SECRET):
            assert trace.encode() not in said, f"{what}: {trace} came back: {said[-400:]!r}"
        strangers = [name for name in _descendants(self.process.pid) if name not in ("sshd", "sshd-session", "python")]
        assert strangers == [], f"{what}: {strangers} run"

    def without_terminal(self, what: str, *arguments: str, given: bytes = b"", patience_s: float = 30.0) -> bytes:
        """One attempt by a client without a terminal; what came back."""
        try:
            done = subprocess.run(
                self.ssh(*arguments), input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=patience_s,
                check=False,
            )  # fmt: skip
            said = done.stdout
        except subprocess.TimeoutExpired as waited:
            said = waited.stdout or b""
        self.check(what, said)
        return said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sshd")
    (folder / "canaries").mkdir()
    (folder / "secret").write_text(SECRET)
    (folder / "evil").mkdir()
    (folder / "evil" / "sitecustomize.py").write_text(f"open({str(folder / 'canaries' / 'py')!r}, 'w')\n")
    for name in ("host", "alice"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    rows = [CandidatePair(f"question {n}", f"yes {n}", f"no {n}") for n in range(400)]
    made = create_pairs(init(folder / "ws"), "s", rows, {"dataset": "d"})
    line = authorized_keys_line(made, "alice", read_public_key(folder / "alice.pub"))
    (folder / "authorized_keys").write_text(line + "\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(_CONFIG.format(folder=folder, port=port))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    daemon = shutil.which("sshd") or "/usr/sbin/sshd"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([daemon, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _await_port(port, folder / "log")
        yield Server(folder, port, process, made)
    finally:
        process.terminate()
        process.wait(60)


_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {folder}/pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PermitTTY yes
PermitUserRC yes
PermitUserEnvironment yes
PermitTunnel yes
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
AllowAgentForwarding yes
GatewayPorts yes
X11Forwarding yes
MaxSessions 50
MaxStartups 100
AcceptEnv LANG LC_* TERM TEXTUAL_* WORKBENCH_* PYTHON* EDITOR VISUAL PAGER SHELL HOME XDG_* SSH_* NO_COLOR COLUMNS
Subsystem sftp internal-sftp
"""


def _split(arguments: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(options, command): what stands before and after "--"."""
    if "--" not in arguments:
        return list(arguments), []
    place = arguments.index("--")
    return list(arguments[:place]), list(arguments[place + 1 :])


def _await_port(port: int, log: Path) -> None:
    for _ in range(400):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.025)
    raise AssertionError(f"sshd never listened: {log.read_text()}")


def _ended(client: subprocess.Popen[bytes]) -> bytes:
    """What a client said, ended by signals until it hears one: one that comes just before ssh waits is not heard."""
    try:
        for _ in range(20):
            client.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return client.communicate(timeout=1)[0]
        raise AssertionError("ssh heard none of 20 signals")
    finally:
        client.kill()
        client.communicate()


def _descendants(root: int) -> list[str]:
    """Names of all processes that descend from one, which is not among them."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            name, rest = stat.partition("(")[2].rpartition(")")[::2]
            parents[int(entry.name)] = int(rest.split()[1]), name
    found = []
    for pid, (parent, name) in parents.items():
        while parent > 1 and parent != root:
            parent = parents.get(parent, (0, ""))[0]
        if parent == root and pid != root:
            found.append("python" if name.startswith("python") else name)
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but those that annotators write."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not set(OWN_FOLDERS) & set(path.relative_to(folder).parts)
    }


def test_commands_files_and_forwarding(server: Server) -> None:
    before = tree(server.made.workspace.root)
    escape = server.escape
    commands = [
        "sh", "/bin/sh -i", escape, f"; {escape}", f"&& {escape}", f"`{escape}`", f"$({escape})", f"\n{escape}\n",
        f"' ; {escape} ; '", f'" ; {escape} ; "', "scp -t /tmp", "internal-sftp", f"-c '{escape}'",
        "label other --as bob --workspace /",
    ]  # fmt: skip
    for command in commands:
        said = server.without_terminal(f"command {command!r}", "--", command)
        assert b"the app needs a terminal" in said
    server.without_terminal("a shell fed on stdin", given=escape.encode() + b"\n")
    server.without_terminal("-T", "-T", given=escape.encode() + b"\nexit\n")
    server.without_terminal("the subsystem sftp", "-s", "--", "sftp", given=b"ls\n")
    server.without_terminal("-W to the server itself", "-W", f"127.0.0.1:{server.port}", given=b"SSH-2.0-x\n")
    copies = {"scp down": ["scp", "-q"], "scp -O down": ["scp", "-q", "-O"]}
    options = server.ssh()[1:-2]
    options[options.index("-p")] = "-P"
    where = f"{getpass.getuser()}@127.0.0.1"
    for what, program in copies.items():
        got = server.folder / "got"
        call = [*program, *options, f"{where}:{server.folder}/secret", str(got)]
        done = subprocess.run(call, capture_output=True, timeout=60, check=False)
        assert done.returncode != 0
        assert not got.exists()
        server.check(what, done.stdout + done.stderr)
        call = [*program, *options, str(server.folder / "secret"), f"{where}:{server.canaries}/copied"]
        done = subprocess.run(call, capture_output=True, timeout=60, check=False)
        assert done.returncode != 0
        server.check(what.replace("down", "up"), done.stdout + done.stderr)
    done = subprocess.run(
        ["sftp", "-q", *options, where], input=f"put {server.folder}/secret {server.canaries}/x\n".encode(),
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    server.check("sftp", done.stdout + done.stderr)
    assert tree(server.made.workspace.root) == before


def test_ports_agents_and_tunnels(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        local = free.getsockname()[1]
    for what, option in {"-L": f"{local}:127.0.0.1:{server.port}", "-D": str(local)}.items():
        client = subprocess.Popen(server.ssh("-N", what, option), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            _await_port(local, server.folder / "log")
            with socket.create_connection(("127.0.0.1", local), timeout=60) as through:
                if what == "-D":  # SOCKS 4: connect to the server's own port
                    through.sendall(b"\x04\x01" + server.port.to_bytes(2, "big") + bytes((127, 0, 0, 1)) + b"x\0")
                answer = through.recv(64)
            assert not answer.startswith(b"SSH-2.0")
            assert not answer.startswith(b"\x00\x5a"), "SOCKS said: granted"
        finally:
            said = _ended(client)
        server.check(f"{what} {option}", said)
    for what, arguments in {
        "-R": ("-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:127.0.0.1:1"),
        "-R of a socket file": ("-o", "ExitOnForwardFailure=yes", "-N", "-R", f"{server.canaries}/s:127.0.0.1:1"),
    }.items():
        assert b"fail" in server.without_terminal(what, *arguments, patience_s=20).lower()
    before = os.listdir("/sys/class/net")
    server.without_terminal("-w", "-N", "-w", "any:any", patience_s=5)
    # The client's own end of a tunnel, where it may make one, goes with it, but not at once.
    end = time.monotonic() + 20
    while os.listdir("/sys/class/net") != before and time.monotonic() < end:
        time.sleep(0.1)
    assert os.listdir("/sys/class/net") == before
    for what, arguments in {
        "-A": ("-A", "--", "ssh-add -l"),
        "-X": ("-X", "--", "xterm"),
        "-Y": ("-Y", "--", "xterm"),
    }.items():
        server.without_terminal(what, *arguments)


VARIABLES = {
    "TERM": "../../../etc/passwd",
    "LC_ALL": "$(touch {canaries}/x)",
    "TEXTUAL_DRIVER": "evil:Driver",
    "TEXTUAL_PRESS": "q,q",
    "TEXTUAL_SCREENSHOT": "1",
    "TEXTUAL_LOG": "{canaries}/log",
    "WORKBENCH_WORKSPACE": "/",
    "PYTHONPATH": "{folder}/evil",
    "PYTHONINSPECT": "1",
    "PYTHONHOME": "{folder}/evil",
    "HOME": "{folder}/evil",
    "SSH_ORIGINAL_COMMAND": "sh",
}
KEYS = {
    "ctrl+z": "\x1a", "ctrl+c": "\x03", "ctrl+backslash": "\x1c", "ctrl+d": "\x04", "ctrl+p, the palette": "\x10home\r",
    "colon and a command": ":!{escape}\r", "shell bang": "!{escape}\r", "[": "[", "]": "]", "m": "m", "r": "r",
    "f": "f", "ctrl+q": "\x11", "ctrl+s": "\x13", "ctrl+o": "\x0f{escape}\r", "ctrl+x ctrl+e": "\x18\x05",
    "ctrl+r": "\x12{escape}\r", "ctrl+n, the guide": "\x0e", "F1": "\x1bOP", "F2": "\x1bOQ", "F12": "\x1b[24~",
    "alt+x": "\x1bx", "shift+tab": "\x1b[Z", "help, then :": "?:!{escape}\r", "help, then ctrl+p": "\x07\x10",
    "a comment that is a command": "c$({escape})\r", "tags that are one": "t`{escape}`\r",
    "the editor": "e:!{escape}\r\x1b",
    "the list": "b/{escape}\r", "a paste": "\x1b[200~\n{escape}\n\x1b[201~", "an OSC reply": "\x1b]52;c;c2g=\x07",
    "a DCS reply": "\x1bP1$r{escape}\x1b\\", "a device report": "\x1b[?1;2c", "y": "y", "slash": "/{escape}\r",
}  # fmt: skip


def test_variables_and_what_they_could_do(server: Server) -> None:
    for name, value in VARIABLES.items():
        value = value.format(canaries=server.canaries, folder=server.folder)
        call = server.ssh("-tt", "-o", f'SetEnv="{name}={value}"' if name != "TERM" else "SetEnv=X=y", "--", "sh")
        with PtyTerminal(call, environment={"TERM": value} if name == "TERM" else {}) as terminal:
            terminal.sees(ALIVE, 60)
            server.check(f"{name}={value}", terminal.received)
            assert terminal.foreign == []


def test_keys(server: Server) -> None:
    """Typed one after another; one of them may mean "leave" where a question stands, and then the link has ended."""
    before = tree(server.made.workspace.root)
    to_try = list(KEYS.items())
    while to_try:
        with PtyTerminal(server.ssh("-tt", "--", server.escape)) as terminal:
            terminal.sees(ALIVE, 60)
            while to_try and terminal.process.poll() is None:
                name, keys = to_try.pop(0)
                terminal.send(keys.replace("{escape}", server.escape))
                terminal.settle(0.2)
                server.check(name, b"" if "{escape}" in keys and SECRET in terminal.text else terminal.received)
                _back_to_the_pair(terminal)
                for elsewhere in ("datasets", "Home", "go to anything"):
                    assert elsewhere not in terminal.text.partition("\n")[0]
            if terminal.process.poll() is None:
                _leave(terminal)
            assert terminal.ends(60) == 0, terminal.text
    assert tree(server.made.workspace.root) == before


def _back_to_the_pair(terminal: PtyTerminal) -> None:
    """Out of whatever was opened, as far as Esc leads."""
    for _ in range(4):
        if terminal.process.poll() is not None or (ALIVE in terminal.text and LEAVES not in terminal.text):
            return
        terminal.press("\x1b")


def _leave(terminal: PtyTerminal) -> None:
    for _ in range(8):  # a second Esc too early would take the question away
        terminal.send("\x1b")
        with suppress(AssertionError):
            terminal.sees(LEAVES, 6)
            break
    terminal.sees(LEAVES)
    terminal.send("q")


def test_that_was_at_least_fifty(server: Server) -> None:
    assert len(set(server.attempts)) >= 50, sorted(server.attempts)
