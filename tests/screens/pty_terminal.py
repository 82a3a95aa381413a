"""A terminal for tests: a program on a pseudo-terminal, every byte it sends, and the screen these bytes draw.

Owns starting, keys, resizing, hanging up, and a strict grammar of what the app may send: printable characters, SGR,
cursor addresses, the modes Textual sets and the queries it asks. Whatever else arrives is kept in `foreign`; nothing is
skipped in silence, so a stranger's escape sequence cannot hide behind a lenient parser. Answers queries as xterm does,
or not at all. Refuses to know the app. Everything runs in the caller's thread: bytes are read while it waits.
"""

from __future__ import annotations

import codecs
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from rich.cells import cell_len

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 40.0
ENTER, ESCAPE, TAB, BACKSPACE, DOWN, UP = "\r", "\x1b", "\t", "\x7f", "\x1b[B", "\x1b[A"
PAGE_DOWN, PAGE_UP = "\x1b[6~", "\x1b[5~"

# The child becomes the leader of a session whose terminal is the pseudo-terminal, as under a login shell; a Python
# between is what the standard library has for it without code after a fork of a process with threads.
_ON_THE_TERMINAL = "import fcntl,os,sys,termios;fcntl.ioctl(0,termios.TIOCSCTTY,0);os.execvp(sys.argv[1],sys.argv[1:])"
_GRAMMAR = re.compile(
    r"(?P<style>\x1b\[[0-9;:]*m)"
    r"|\x1b\[(?P<row>\d+);(?P<column>\d+)H"
    r"|\x1b\[\?(?P<mode>7|25|1000|1003|1004|1006|1015|1016|1049|2004|2026|2048)(?P<switch>[hl])"
    r"|(?P<query>\x1b\[\?(?:2026|2048)\$p)"
    r"|(?P<keyboard>\x1b\[(?:>\d+|<)u)"
    r"|(?P<pointer>\x1b\]22;(?:default|pointer|text|grab|grabbing|not-allowed|[ensw]{1,4}-resize)\x07)"
    r"|(?P<newline>\r?\n)"
    r"|(?P<text>[\x20-\x7e\u00a0-\uffff\U00010000-\U0010ffff]+)"
)
_UNFINISHED = re.compile(r"\r\Z|\x1b(?:\[[?<>]?[0-9;:]{0,64}\$?|\][^\x07\x1b]{0,64})?\Z")
_XTERM_ANSWERS = {"\x1b[?2026$p": "\x1b[?2026;2$y", "\x1b[?2048$p": "\x1b[?2048;0$y"}


class Piece(NamedTuple):
    """What arrived in one read."""

    at: float
    data: bytes


class Token(NamedTuple):
    """One piece of what a program sent: `kind` is a name of the grammar, or "foreign"."""

    kind: str
    text: str
    found: re.Match[str] | None


def tokens(text: str) -> Iterator[Token]:
    """`text` by the grammar; each character that begins nothing in it is a foreign token by itself."""
    place = 0
    while place < len(text):
        found = _GRAMMAR.match(text, place)
        if found:
            kind = next(name for name, value in found.groupdict().items() if value is not None)
            yield Token(kind, found[0], found)
            place = found.end()
        else:
            yield Token("foreign", text[place], None)
            place += 1


class Drawing:
    """The screen that the bytes so far have drawn, and the modes they have set."""

    def __init__(self, columns: int, rows: int) -> None:
        self.modes: dict[str, bool] = {"25": True}
        self.foreign: list[str] = []
        """What the grammar does not know, with what stood around it."""
        self.queries: list[str] = []
        """Questions to the terminal that wait for an answer."""
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """A terminal of another size; the program draws it anew."""
        self.columns, self.rows = columns, rows
        self._cells = [[" "] * columns for _ in range(rows)]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Draw what was sent."""
        place = 0
        for token in tokens(text):
            self._take(token, text[max(0, place - 20) : place + 20])
            place += len(token.text)

    @property
    def text(self) -> str:
        """The lines, without the blanks at their ends."""
        return "\n".join("".join(cells).rstrip() for cells in self._cells)

    def _take(self, token: Token, around: str) -> None:
        found = token.found
        if found is None:
            self.foreign.append(repr(around))
        elif token.kind == "text":
            self._write(token.text)
        elif token.kind in ("row", "column"):
            self._row, self._column = int(found["row"]) - 1, int(found["column"]) - 1
        elif token.kind in ("mode", "switch"):
            self.modes[found["mode"]] = found["switch"] == "h"
            if found["mode"] == "1049":
                self.resize(self.columns, self.rows)
        elif token.kind == "query":
            self.queries.append(token.text)
        elif token.kind == "newline":
            self._row, self._column = self._row + 1, 0

    def _write(self, text: str) -> None:
        for letter in text:
            width = cell_len(letter)
            if not 0 <= self._row < self.rows or self._column + width > self.columns:
                continue  # the app switches wrapping off: what is beyond the edge is lost
            if width == 0:
                if self._column:
                    self._cells[self._row][self._column - 1] += letter
                continue
            self._cells[self._row][self._column] = letter
            for beside in range(self._column + 1, self._column + width):
                self._cells[self._row][beside] = ""
            self._column += width


class PtyTerminal:
    """A program on a pseudo-terminal. A context manager; leaving it ends the program."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        size: tuple[int, int] = (80, 24),
        environment: Mapping[str, str | None] | None = None,
        answers: bool = True,
    ) -> None:
        """`environment` is laid over a plain one (256 colours by TERM, UTF-8); None removes a variable."""
        self.pieces: list[Piece] = []
        self.drawing = Drawing(*size)
        self._answers = answers
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._pending = ""
        self._ended = False
        self._master, slave = pty.openpty()
        _set_size(self._master, size)
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", _ON_THE_TERMINAL, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            cwd=ROOT,
            env=_environment(environment or {}),
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        self.close()

    # What it shows.

    @property
    def text(self) -> str:
        """The screen as lines."""
        return self.drawing.text

    @property
    def foreign(self) -> list[str]:
        """What the program sent that the app may never send."""
        return self.drawing.foreign

    @property
    def received(self) -> bytes:
        """Every byte so far."""
        return b"".join(piece.data for piece in self.pieces)

    @property
    def count(self) -> int:
        """How many bytes were received."""
        return sum(len(piece.data) for piece in self.pieces)

    # What one does to it.

    def send(self, keys: str) -> float:
        """Type; returns when."""
        at = time.perf_counter()
        os.write(self._master, keys.encode())
        return at

    def press(self, *keys: str, sees: str = "") -> None:
        """Keys one after another, each after the app is quiet; then wait for words on the screen."""
        for key in keys:
            self.send(key)
            self.settle(0.12)
        if sees:
            self.sees(sees)

    def resize(self, columns: int, rows: int) -> None:
        """Another size, as when a window is pulled."""
        self.drawing.resize(columns, rows)
        _set_size(self._master, (columns, rows))
        os.killpg(self.process.pid, signal.SIGWINCH)

    def close(self) -> None:
        """The terminal goes away: the program's side hangs up."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    # Waiting.

    def read(self, for_s: float) -> int:
        """Take in what comes within a time; the number of bytes."""
        before, end = self.count, time.perf_counter() + for_s
        while (left := end - time.perf_counter()) > 0 and self._take_in(left):
            pass
        return self.count - before

    def settle(self, quiet_s: float = 0.4, patience_s: float = PATIENCE_S) -> None:
        """Wait until nothing has come for `quiet_s`."""
        end = time.perf_counter() + patience_s
        while time.perf_counter() < end:
            if not self.read(quiet_s):
                return
        raise AssertionError(f"never quiet for {quiet_s} s\n{self.text}")

    def answer(self, quiet_s: float, patience_s: float = PATIENCE_S) -> float:
        """Wait until something has come, and then nothing for `quiet_s`; when the last bytes came.

        Drawn when it is over: what the terminal does with the bytes is none of the program's time.
        """
        end, first = time.perf_counter() + patience_s, len(self.pieces)
        while time.perf_counter() < end and self._receive(quiet_s if len(self.pieces) > first else 0.05) is not None:
            if self.pieces and time.perf_counter() - self.pieces[-1].at >= quiet_s and len(self.pieces) > first:
                break
        assert len(self.pieces) > first, f"no answer after {patience_s} s\n{self.text}"
        for piece in self.pieces[first:]:
            self._draw(piece.data)
        return self.pieces[-1].at

    def until(self, condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> float:
        """Wait until `condition` holds; when the last bytes before it came. AssertionError with the screen else."""
        end = time.perf_counter() + patience_s
        while not condition():
            if time.perf_counter() > end or (not self._take_in(min(0.05, patience_s)) and not condition()):
                raise AssertionError(f"never came: {what}\n{self.text}\nlast bytes: {self.received[-300:]!r}")
        return self.pieces[-1].at if self.pieces else self.began

    def sees(self, words: str, patience_s: float = PATIENCE_S) -> float:
        """Wait until `words` are on the screen."""
        return self.until(lambda: words in self.text, f"{words!r} on the screen", patience_s)

    def ends(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for the program's end; its exit code."""
        end = time.perf_counter() + patience_s
        while self.process.poll() is None and time.perf_counter() < end:
            self.read(0.02)
            if self._ended or self._master < 0:
                time.sleep(0.01)
        self.read(0.02)
        assert self.process.poll() is not None, f"still there after {patience_s} s\n{self.text}"
        return self.process.returncode

    def _take_in(self, patience_s: float) -> bool:
        """Read once and draw it; False where nothing will come any more."""
        data = self._receive(patience_s)
        if data:
            self._draw(data)
        return data is not None

    def _receive(self, patience_s: float) -> bytes | None:
        """Read once: nothing where nothing came in that time, None where nothing will come any more."""
        if self._master < 0 or self._ended:
            return None
        ready, _, _ = select.select([self._master], [], [], patience_s)
        if not ready:
            return b""
        try:
            data = os.read(self._master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self._ended = True
            return None
        self.pieces.append(Piece(time.perf_counter(), data))
        return data

    def _draw(self, data: bytes) -> None:
        text = self._pending + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        cut = unfinished.start() if unfinished else len(text)
        self._pending = text[cut:]
        self.drawing.feed(text[:cut])
        self._answer()

    def _answer(self) -> None:
        for query in self.drawing.queries:
            if self._answers:
                os.write(self._master, _XTERM_ANSWERS[query].encode())
        self.drawing.queries.clear()


def app_command(workspace: Path, *arguments: str) -> list[str]:
    """The command that starts the app on a workspace."""
    return [sys.executable, "-m", "screens.start", str(workspace), *arguments]


def _set_size(descriptor: int, size: tuple[int, int]) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLORTERM", "NO_COLOR", "LC_ALL", "LC_CTYPE", "TMUX", "COLUMNS", "LINES", "TERM_PROGRAM")
        and not name.startswith("TEXTUAL")
    }
    plain = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    return {name: value for name, value in {**inherited, **plain, **changes}.items() if value is not None}
