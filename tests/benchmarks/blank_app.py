"""A Textual app with nothing in it but a line that each key changes: what an answer costs before any work is."""

from __future__ import annotations

import sys

BLANK_READY = "blank ready"
_CODE = f"""
import os; os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
from textual.app import App
from textual.widgets import Static
class Blank(App):
    keys = 0
    def compose(self):
        yield Static({BLANK_READY!r})
    def on_key(self):
        self.keys += 1
        self.query_one(Static).update(f"key {{self.keys}}")
Blank().run()
"""
BLANK_APP = [sys.executable, "-c", _CODE]
"""The command that starts it."""
