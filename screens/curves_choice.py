"""Asking which runs are to be looked at together.

Owns the question alone; what a pattern finds is `workbench.run_comparison_choice`'s.
"""

from __future__ import annotations

from screens.modals import AskText
from screens.station import Station
from workbench.errors import UsageError
from workbench.run_comparison_choice import pattern_of


def ask_for_runs(station: Station, baseline: str, pattern: str = "") -> None:
    """Ask for a pattern, and show the runs that it finds beside `baseline`."""

    def wrong_with(text: str) -> str:
        try:
            pattern_of(text)
        except UsageError as error:
            return str(error)
        return ""

    def go(text: str | None) -> None:
        if text is not None:
            station.workbench_app.open("several", f"{baseline}/{text}")

    station.app.push_screen(
        AskText(
            f"Which runs beside {baseline}? A pattern over IDs, names, tags and settings; empty for all.",
            value=pattern,
            placeholder=r"dpo   or   tag=keep   or   optim\.lr=1e-05   or   dpo-(one|two)",
            check=wrong_with,
        ),
        go,
    )
