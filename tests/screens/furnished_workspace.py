"""A small workspace with something at every station, made by the workbench's own functions and without any training.

Owns `furnish`. Every text in it that a stranger could have written passes `said`, a function of the place it stands at:
rows, column names, file names, notes, comments, model names, metric names, reasons, log lines, samples, settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.events import append_event
from engine.run.folder import RunFolder
from engine.run.metrics_log import MetricsWriter
from engine.run.samples_log import append_samples
from engine.run.status import Status, write_status
from tests.workbench.run_folders import make_checkpoint
from workbench.canonical_rows import assistant, user
from workbench.dataset_store import add_dataset, open_dataset
from workbench.judgments import Journal
from workbench.pair_sets import CandidatePair, PairSet, create_pairs, pairs_from_dataset
from workbench.preferences import freeze
from workbench.workspace import Workspace, init

Said = Callable[[str], str]
RUN_DONE, RUN_FAILED = "1124-dpo-tidy-aa1", "1124-sft-torn-bb2"
DATASETS = ("demonstrations", "answers", "preferences-raw", "chats", "texts", "prompts")
PAIRS, ARENA, PREFERENCES = "answers-pairs", "tidy-arena", "tidy-prefs"
ROWS = 40
WORDS = "the wheel turns well and the brake holds the rim from both sides "


def plainly(place: str) -> str:
    """What stands at a place where nobody means harm."""
    return f"the {place}"


def furnish(root: Path, said: Said = plainly, *, annotator: str = "alice", long_cell: int = 0) -> Workspace:
    """A workspace at `root`: six datasets, a pair set half judged, frozen preferences, an arena, two runs.

    With `long_cell` one row of every dataset has a text of that many characters.
    """
    workspace = init(root / "ws")
    for name, rows in _rows(said, long_cell).items():
        file = root / f"{name} {said('file name')}.jsonl".replace("/", "|").replace("\0", "").replace("\n", "")
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        copied = name != "texts"
        mapping = {"text": next(iter(rows[0]))} if name == "texts" else None
        add_dataset(workspace, file, name, mapping, copy=copied, note=said("note"))
    pairs = pairs_from_dataset(workspace, PAIRS, open_dataset(workspace, "answers"))
    _judge(pairs, annotator, said)
    freeze(workspace, PAIRS, PREFERENCES)
    models = [{"source": said("first model"), "sha256": ""}, {"source": said("second model"), "sha256": ""}]
    source = {"prompts": {"dataset": said("prompts")}, "models": models}
    candidates = [
        CandidatePair([user(f"{said('arena prompt')} {n}")], [assistant(f"{said('arena first')} {n}")],
                      [assistant(f"{said('arena second')} {n}")], models[0]["source"], models[1]["source"])
        for n in range(4)
    ]  # fmt: skip
    arena = create_pairs(workspace, ARENA, candidates, source, kind="arena", note=said("arena note"))
    _judge(arena, annotator, said, leave=2)
    _run(workspace, RUN_DONE, "dpo", "done", said)
    _run(workspace, RUN_FAILED, "sft", "failed", said)
    return workspace


def _rows(said: Said, long_cell: int) -> dict[str, list[dict[str, Any]]]:
    def text(place: str, n: int) -> str:
        long = (WORDS * (long_cell // len(WORDS)) + said("the end of a long cell")) if long_cell and n == 2 else WORDS
        return f"{said(place)} {n} {long}"

    def each(make: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
        return [make(n) for n in range(ROWS)]

    return {
        "demonstrations": each(
            lambda n: {"prompt": text("prompt", n), "completion": text("answer", n), said("column"): said("tag")}
        ),
        "answers": each(lambda n: {"prompt": text("question", n), "a": text("left", n), "b": text("right", n)}),
        "preferences-raw": each(
            lambda n: {"prompt": text("asked", n), "chosen": text("chosen", n), "rejected": text("rejected", n)}
        ),
        "chats": each(lambda n: {"messages": [user(text("turn", n)), assistant(text("reply", n))]}),
        "texts": each(lambda n: {said("text column"): text("text", n)}),
        "prompts": each(lambda n: {"prompt": text("prompt alone", n)}),
    }


def _judge(pairs: PairSet, annotator: str, said: Said, leave: int = 20) -> None:
    ids = [pair.id for pair in pairs.pairs()]
    with Journal(pairs.judgments_folder, annotator) as journal:
        for n, pair in enumerate(ids[: len(ids) - leave]):
            journal.append(pair, "a" if n % 3 else "b", origin="screen", order="ab", comment=said("comment"))


def _run(workspace: Workspace, run_id: str, method: str, phase: str, said: Said) -> RunFolder:
    layer = {
        "run": {"id": run_id, "created": "2026-11-24T10:00:00+00:00", "name": run_id[9:-4]},
        "model": {"source": said("model"), "path": ""},
        "data": {"names": [PREFERENCES]},
    }
    folder = RunFolder.create(workspace.runs / run_id, to_toml(resolve(method, [("test", layer)]).config))
    error = {"what": said("what failed"), "remedy": said("remedy")} if phase == "failed" else None
    last: dict[str, float | None] = {"loss": 0.5, "eval_loss": 0.25, said("last metric"): 1.0}
    best = {"step": 4, "metric": said("best metric"), "value": 0.25}
    write_status(folder, Status(run=run_id, phase=phase, step=8, total_steps=8, attempt=1, device=said("device"),
                                last=last, error=error, best=best))  # fmt: skip
    writer = MetricsWriter(folder.metrics_path, 1)
    for step in range(1, 9):
        kl = {"kl/policy_reference_nats_per_sequence": step / 10, "kl/policy_reference_standard_error": 0.05}
        own = {"rewards/margins": step / 5, "rewards/accuracies": 0.5 + step / 20, said("metric"): float(step)}
        writer.write(step, {"loss": 1.0 / step, **kl, **own})
    writer.close()
    append_samples(folder, 4, 1, "probe", list(_samples(said)))
    for kind in ("created", "started", said("event kind")):
        append_event(folder, kind, words=said("event"))
    folder.log_path.write_text("".join(f"{said('log line')} {n}\n" for n in range(30)), "utf-8")
    make_checkpoint(folder, 4, "lora")
    return folder


def _samples(said: Said) -> Iterator[dict[str, Any]]:
    for n in range(3):
        yield {"prompt_id": f"p{n}", "prompt": f"{said('sample prompt')} {n}", "completion": said("sample completion"),
               "logratio": [0.1, -0.2], "length": 2, "stopped": True, said("sample key"): 0.5}  # fmt: skip
