"""The README's table of alarms says what the defaults are."""

from __future__ import annotations

import re
from pathlib import Path

from engine.run.alarm_rules import RULES, settings_of
from engine.run.config import RunConfig

README = Path(__file__).resolve().parents[3] / "README.md"


def test_the_table_of_alarms_is_that_of_the_rules() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) (\w+) \| (\w+) \|$", README.read_text("utf-8"), re.MULTILINE)
    told = {name: (int(window), readings, action) for name, window, readings, action in rows}
    for rule in RULES:
        settings = settings_of(rule, RunConfig())
        assert told[rule.name] == (settings.window, rule.readings, settings.on_alarm)
