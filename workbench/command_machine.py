"""`workbench doctor` and `workbench gpus`: what the machine has."""

from __future__ import annotations

import argparse

from workbench.terminal_output import Column, field_lines, line_width, note, say, write_json, write_table

SCHEMA = 1


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of one of these commands."""
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    if command == "doctor":
        parser.add_argument("--workspace", metavar="PATH", help="the workspace to look at")
        parser.set_defaults(action=run_doctor)
    else:
        parser.set_defaults(action=run_gpus)


def run_doctor(args: argparse.Namespace) -> int:
    """Print every check; 1 where something is lacking."""
    from workbench.doctor import examine

    checks = examine(args.workspace)
    lacking = [check for check in checks if check.state == "lacks"]
    if args.json:
        write_json({"schema": SCHEMA, "lacks": len(lacking), "checks": [check.as_json() for check in checks]})
        return 1 if lacking else 0
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = {"ok": "ok   ", "note": "note ", "lacks": "LACKS"}[check.state]
        text = field_lines({f"{mark}  {check.name:<{width}}": check.found}, line_width())
        if check.remedy:
            text += field_lines({" " * (width + 7): f"do: {check.remedy}"}, line_width())
        for line in text:
            print(line)
    say()
    say(f"{len(lacking)} lacking." if lacking else "Nothing is lacking.")
    return 1 if lacking else 0


def run_gpus(args: argparse.Namespace) -> int:
    """Print the installed GPUs."""
    from dataclasses import asdict

    from engine.run.gpus import torch_usable
    from workbench.gpu_holders import gpu_uses

    uses = gpu_uses()
    reason = torch_usable() if uses else None
    if args.json:
        gpus = [{**asdict(use.gpu), "holder": use.holder} for use in uses]
        write_json({"schema": SCHEMA, "gpus": gpus, "torch_cannot_use_them": reason})
        return 0
    columns = [
        Column("gpu"), Column("name", shrinks=True), Column("memory MB", right=True), Column("used MB", right=True),
        Column("driver"), Column("holder"),
    ]  # fmt: skip
    rows = [
        [
            str(gpu.index),
            gpu.name,
            f"{gpu.memory_total_mb:,}",
            f"{gpu.memory_used_mb:,}",
            gpu.driver_version,
            use.holder,
        ]
        for use in uses
        for gpu in (use.gpu,)
    ]
    write_table(columns, rows, empty="No NVIDIA GPU here; runs use the CPU.")
    if reason:
        note(reason)
    return 0
