"""The one door between strangers' text and a terminal.

Owns `safe`: what comes out cannot move the cursor, change colours, write the clipboard, reorder or hide characters, and
can be encoded as UTF-8. Every character that could is shown as a visible stand-in; nothing is dropped. Refuses to know
where the text came from: rows, completions, file names, log lines and messages of exceptions are all treated alike.
"""

from __future__ import annotations

import re

_CONTROLS = "\x00-\x1f\x7f-\x9f"
# Zero-width, bidirectional and other format characters, fillers that look like nothing, separators that break lines,
# variation selectors beyond the emoji ones, tags, private use, noncharacters and halves of surrogate pairs.
_UNSEEN = (
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff"
    "\ufdd0-\ufdef\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ue000-\uf8ff\U000f0000-\U0010ffff"
)
_UNSAFE = re.compile(f"[{_CONTROLS}{_UNSEEN}]")
_UNSAFE_IN_A_BLOCK = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_UNSEEN}]")


def safe(text: str, limit: int | None = None, newlines: bool = False) -> str:
    """`text` as it may be written to a terminal.

    C0 controls and DEL become their control pictures (ESC is ␛), everything else that is unseen or harmful becomes
    <U+202E>. `limit` keeps that many characters of `text` and ends in "… (1.0 MB)", the size of the whole. With
    `newlines`, line ends stay and a tab is a space; without, both are pictures, so the result is one line.
    """
    if limit is not None and len(text) > limit:
        return f"{safe(text[:limit], newlines=newlines)}… ({_size(text)})"
    if text.isascii() and text.isprintable():
        return text
    if newlines:
        return _UNSAFE_IN_A_BLOCK.sub(_visible, text.replace("\r\n", "\n").replace("\t", " "))
    return _UNSAFE.sub(_visible, text)


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def _size(text: str) -> str:
    size = len(text.encode("utf-8", "surrogatepass"))
    for unit, bytes_each in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_each:
            return f"{size / bytes_each:.1f} {unit}"
    return f"{size} bytes"
