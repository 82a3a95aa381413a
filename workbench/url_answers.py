"""Answers of a model behind an OpenAI-compatible URL: one request for each answer, a few at once, tried again.

Owns the requests, the limits and what is said of a server that does not answer as it should. Invariants: each answer is
handed on as it comes, so that what was answered is never asked again; a request has a seed of its own, made of the
seed, the prompt's id and the number of the answer; the key goes to the URL it is for (no redirect is followed) and is
taken out of everything a server says. A prompt that is a text goes to /completions, one of turns to /chat/completions.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import math
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from engine.run.safe_text import safe
from workbench.canonical_rows import PromptRow
from workbench.errors import WorkbenchError
from workbench.generation import Answer, Sampling
from workbench.url_model import UrlModel, key_of

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of which one may hope that they pass."""
MOST_BYTES = 16 * 1024 * 1024
LOOK_EVERY_S = 0.2
_SHOWN = 200


@dataclass(frozen=True)
class Limits:
    """How long and how often a server is asked."""

    at_once: int = 4
    connect_s: float = 10.0
    """For the connection."""
    timeout_s: float = 300.0
    """Without a byte from the server."""
    tries: int = 5
    """For each answer."""
    pause_s: float = 1.0
    """Before the second try; it doubles, and a server's Retry-After counts where it is longer."""
    longest_pause_s: float = 60.0


class _Refused(WorkbenchError):
    """Asking again would not help."""


class _Passing(WorkbenchError):
    """Asking again may help."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


def ask_url(
    model: UrlModel,
    prompts: Sequence[PromptRow],
    sampling: Sampling,
    *,
    has: Callable[[str, int], bool] = lambda prompt, sample: False,
    take: Callable[[Answer], None],
    look: Callable[[], None] = lambda: None,
    limits: Limits | None = None,
) -> None:
    """Ask for each answer that `has` says is not there, and `take` it here as it comes.

    `look` is called now and then and may raise to end it. Raises WorkbenchError for the first answer that cannot be
    had; those that came before have been taken.
    """
    key = key_of(model)
    todo: queue.SimpleQueue[tuple[PromptRow, int]] = queue.SimpleQueue()
    wanted = [(row, sample) for row in prompts for sample in range(sampling.samples) if not has(row["id"], sample)]
    for one in wanted:
        todo.put(one)
    came: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
    limits = limits or Limits()
    asking = [_Asker(model, key, sampling, limits, todo, came) for _ in range(min(limits.at_once, len(wanted)))]
    try:
        for one_asker in asking:
            one_asker.start()
        left = len(wanted)
        while left:
            look()
            try:
                found = came.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                continue
            if isinstance(found, BaseException):
                raise found
            take(found)
            left -= 1
    finally:
        for one_asker in asking:
            one_asker.end()
        while not came.empty():  # what had come when another failed is not lost
            late = came.get_nowait()
            if isinstance(late, Answer):
                take(late)


class _Asker(threading.Thread):
    """Asks for one answer after the other over one connection."""

    def __init__(
        self,
        model: UrlModel,
        key: str,
        sampling: Sampling,
        limits: Limits,
        todo: queue.SimpleQueue[tuple[PromptRow, int]],
        came: queue.SimpleQueue[Answer | BaseException],
    ) -> None:
        super().__init__(daemon=True)
        self._model, self._key, self._sampling, self._limits = model, key, sampling, limits
        self._todo, self._came = todo, came
        self._over = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None

    def end(self) -> None:
        """Ask nothing more, and wait for nothing more."""
        self._over.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        try:
            while not self._over.is_set():
                row, sample = self._todo.get_nowait()
                self._came.put(self._answer(row, sample))
        except queue.Empty:
            pass
        except BaseException as error:
            self._came.put(error)
        finally:
            self._close()

    def _answer(self, row: PromptRow, sample: int) -> Answer:
        pause_s = self._limits.pause_s
        for number in range(1, self._limits.tries + 1):
            try:
                return self._ask(row, sample)
            except _Passing as error:
                if number == self._limits.tries:
                    raise WorkbenchError(f"{error} Tried {number} times.") from error
                self._over.wait(min(max(pause_s, error.after_s), self._limits.longest_pause_s))
                pause_s *= 2
                if self._over.is_set():
                    raise
        raise AssertionError("a try ends in an answer or an error")

    def _ask(self, row: PromptRow, sample: int) -> Answer:
        path, body = _request(self._model, row, sample, self._sampling)
        where = self._model.url
        try:
            status, headers, content = self._post(path, body)
        except TimeoutError as error:
            self._close()
            raise _Passing(f"{where} sent nothing for {self._limits.timeout_s:g} s.") from error
        except http.client.IncompleteRead as error:
            self._close()
            raise _Passing(f"{where} cut its answer off after {len(error.partial):,} bytes.") from error
        except (http.client.HTTPException, OSError) as error:
            self._close()
            raise _Passing(f"{where} cannot be reached: {self._plain(str(error) or type(error).__name__)}.") from error
        if status in AGAIN:
            raise _Passing(f"{where} said {status}{self._words(content)}.", _retry_after(headers))
        if status != 200:
            raise _Refused(f"{where} said {status}{self._words(content)}. {_remedy(status)}")
        return _read(content, row, sample, where)

    def _post(self, path: str, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        if self._connection is None:
            found = urlsplit(self._model.url)
            kind = http.client.HTTPSConnection if found.scheme == "https" else http.client.HTTPConnection
            connection = kind(found.hostname or "", found.port, timeout=self._limits.connect_s)
            connection.connect()
            connection.sock.settimeout(self._limits.timeout_s)
            self._connection, self._socket = connection, connection.sock
            if self._over.is_set():  # it was ended while it connected: nobody has shut this socket
                raise http.client.NotConnected("nothing more is asked")
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "workbench"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._connection.request("POST", urlsplit(self._model.url).path + path, body, headers)
        answered = self._connection.getresponse()
        content = answered.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            self._close()
            raise _Refused(f"{self._model.url} sent more than {MOST_BYTES // 2**20} MB for one answer.")
        if answered.length:  # fewer bytes than it had promised
            raise http.client.IncompleteRead(content)
        if answered.will_close:
            self._close()
        return answered.status, answered.headers, content

    def _words(self, content: bytes) -> str:
        """What a server said of its refusal, in a few words without the key; empty for nothing."""
        text = content[: 64 * _SHOWN].decode("utf-8", "replace")
        try:
            found = json.loads(text)
            error = found.get("error", found.get("message", text))
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError):
            pass
        said = self._plain(" ".join(text.split()))
        return f": {said}" if said else ""

    def _plain(self, text: str) -> str:
        return safe(text.replace(self._key, "[key]") if self._key else text)[:_SHOWN].rstrip(".")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._socket = None


def _request(model: UrlModel, row: PromptRow, sample: int, sampling: Sampling) -> tuple[str, bytes]:
    asked = row["prompt"]
    seed = hashlib.sha256(f"{sampling.seed}\x1f{row['id']}\x1f{sample}".encode()).digest()
    body: dict[str, Any] = {
        "model": model.name,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": int.from_bytes(seed[:4], "big") >> 1,
        "n": 1,
    }
    if isinstance(asked, str):
        return "/completions", json.dumps(body | {"prompt": asked}).encode()
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in asked]
    return "/chat/completions", json.dumps(body | {"messages": turns}).encode()


def _read(content: bytes, row: PromptRow, sample: int, where: str) -> Answer:
    """Raises WorkbenchError, which says what was found, for what is no answer."""
    try:
        found = json.loads(content)
    except ValueError as error:
        start = safe(content[:60].decode("utf-8", "replace"))
        raise _Passing(f"{where} said 200 and no JSON (it begins {start!r}).") from error
    try:
        choice = found["choices"][0]
        text = choice["text"] if isinstance(row["prompt"], str) else choice["message"]["content"]
        if not isinstance(text, str):
            raise TypeError(type(text).__name__)
    except (KeyError, IndexError, TypeError) as error:
        part = "text" if isinstance(row["prompt"], str) else "message.content"
        seen = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise _Refused(
            f"{where} answered in another form: expected choices[0].{part}, a text; it sent {safe(seen)[:_SHOWN]}. "
            "Is it an OpenAI-compatible server, and does the URL end in /v1?"
        ) from error
    usage = found.get("usage")
    tokens = usage.get("completion_tokens", 0) if isinstance(usage, dict) else 0
    stopped = choice.get("finish_reason") != "length"
    return Answer(row["id"], sample, text, stopped, tokens if isinstance(tokens, int) else 0, math.nan)


def _retry_after(headers: http.client.HTTPMessage) -> float:
    """Seconds that a server asks to be left alone; 0 where it says none, or a date."""
    try:
        return max(0.0, float(headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "Name the environment variable of its key in your settings: [url_keys]."
    if 300 <= status < 400:
        return "It sends elsewhere, which is not followed: name the URL that it means."
    return "Is the model's name behind # one that it has, and does the URL end in /v1?" if status == 404 else ""
