"""What the last evaluation of a reward run found, in words: accuracy beside a baseline, calibration, slices.

Owns the wording alone; the figures and their errors are the engine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from workbench.terminal_output import number

KIND = "held_out_report"


def report_fields(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Fields for `runs show`; empty where the run has told no report, or one that cannot be read."""
    report: Mapping[str, Any] | None = None
    for event in events:
        report = event if event.get("kind") == KIND else report
    if report is None:
        return {}
    try:
        longer = report["baselines"]["always_longer"]
        fields = {
            "held out": f"accuracy {_share(report)} of {report['pairs']:,} pairs at step {report['step']:,}; "
            f"always the longer answer: {_share(longer)}",
            "calibration": f"expected error {number(report['calibration_error'], 3)}",
        }
        for tag, values in report["slices"].items():
            each = [f"{value} {_share(one)} ({one['pairs']:,})" for value, one in values.items()]
            fields[f"  {tag}"] = " · ".join(each)
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}
    return fields


def _share(found: Mapping[str, Any]) -> str:
    error = found.get("standard_error")
    return number(found["accuracy"], 3) + (f" ± {number(error, 3)}" if error is not None else "")
