"""Run folders for tests, made by the engine's own functions, without training anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import MANIFEST, RunFolder
from engine.run.locks import hold
from engine.run.metrics_log import MetricsWriter
from engine.run.status import Status, write_status
from sample_data import ROOT
from workbench.workspace import Workspace


def make_run(
    workspace: Workspace,
    run_id: str,
    *,
    created: str = "2026-11-24T10:00:00+00:00",
    phase: str = "done",
    step: int = 4,
    source: str = "sample",
    model: str = "",
    adapter: str = "",
    adapter_kind: str = "lora",
    checkpoints: tuple[int, ...] = (),
    best: int | None = None,
    name: str = "",
) -> RunFolder:
    """A run of the workspace as it would lie there after `phase`."""
    method = run_id.split("-")[1]
    layer = {
        "run": {"id": run_id, "name": name, "created": created},
        "model": {"source": source, "path": model, "adapter": adapter},
        "adapter": {"kind": adapter_kind},
    }
    folder = RunFolder.create(workspace.runs / run_id, to_toml(resolve(method, [("test", layer)]).config))
    last: dict[str, float | None] = {"loss": 0.5, "eval_loss": 0.25}
    write_status(folder, Status(run=run_id, phase=phase, step=step, total_steps=8, attempt=1, device="cpu", last=last))
    writer = MetricsWriter(folder.metrics_path, 1)
    for number in range(1, step + 1):
        kl = {"kl/policy_reference_nats_per_sequence": number / 10, "kl/policy_reference_standard_error": 0.05}
        writer.write(number, {"loss": 1.0 / number, **(kl if method != "reward" else {})})
    writer.close()
    for number in checkpoints:
        make_checkpoint(folder, number, adapter_kind)
    if best is not None:
        folder.write_best({"step": best, "metric": "eval_loss", "value": 0.25})
    return folder


def make_checkpoint(folder: RunFolder, step: int, kind: str) -> Path:
    """A sealed checkpoint folder with files that are enough to be resolved, not to be loaded."""
    path = folder.checkpoint_path(step)
    path.mkdir(parents=True)
    if kind == "lora":
        (path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base", "step": step}))
        (path / "adapter_model.safetensors").write_bytes(b"adapter %d" % step)
    else:
        make_model(path, b"weights %d" % step)
    (path / MANIFEST).write_text("{}")
    return path


def make_model(path: Path, weights: bytes = b"weights") -> Path:
    """A folder that looks like a transformers model, with the tokenizer of the sample model."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((ROOT / "model" / name).read_bytes())
    (path / "model.safetensors").write_bytes(weights)
    return path


def make_adapter(path: Path, **config: Any) -> Path:
    """An adapter folder over the sample model: its config is real, its weights are none."""
    path.mkdir(parents=True)
    fields = {"peft_type": "LORA", "base_model_name_or_path": str(ROOT / "model"), "r": 8, "lora_alpha": 8}
    written = fields | {"target_modules": ["q_proj"], "use_rslora": False, "use_dora": False} | config
    (path / "adapter_config.json").write_text(json.dumps(written))
    header = b"{}"  # a whole file of no tensors
    (path / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@contextmanager
def held(run: RunFolder) -> Iterator[None]:
    """As while the supervisor of `run` is there."""
    lock = hold(run.lock_path)
    assert lock is not None
    try:
        yield
    finally:
        lock.release()
