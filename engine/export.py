"""A checkpoint as one whole model: `python -m engine.export JOB.json`.

JOB.json is {"path": base or full checkpoint, "adapter": adapter folder or "", "out": an empty folder}. The adapter is
merged in fp32 and the sum is rounded once, to the precision of the base's own files; a checkpoint of all weights,
which training keeps in fp32, is rounded to what its base had where "like" names the base. Tokenizer and chat template
are the checkpoint's own; a reward model stays one (…ForSequenceClassification with its head). transformers and vLLM
load the result. An error is one line on stderr and exit code 1; the last line on stdout is {"dtype", "bytes"}.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from engine.errors import EngineError, ModelError
from engine.model.model_files import read_adapter_config, tensor_infos, weight_files
from engine.run.safe_text import safe

TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
"""Precisions that a model can be saved in, as safetensors and as torch write them."""


def main(argv: list[str] | None = None) -> int:
    """Do one job."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -m engine.export JOB.json", file=sys.stderr)
        return 2
    try:
        job = json.loads(Path(arguments[0]).read_text())
        like = Path(job.get("like") or job["path"])
        adapter = Path(job["adapter"]) if job.get("adapter") else None
        result = export_whole(Path(job["path"]), adapter, Path(job["out"]), dtype=stored_precision(like))
    except (EngineError, OSError) as error:
        print(safe(" ".join(str(error).split())), file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


def stored_precision(folder: Path) -> str:
    """The precision that holds most of a model's numbers in its files: "bfloat16", "float16" or "float32"."""
    numbers: Counter[str] = Counter()
    for file in weight_files(folder):
        for info in tensor_infos(file).values():
            numbers[info.dtype] += info.elements
    most = numbers.most_common(1)[0][0] if numbers else ""
    if most not in TORCH_NAMES:
        raise ModelError(f"{folder}: weights in {most or 'no precision'}: expected {', '.join(TORCH_NAMES)}")
    return TORCH_NAMES[most]


def export_whole(path: Path, adapter: Path | None, out: Path, *, dtype: str) -> dict[str, Any]:
    """Write the model at `path`, with `adapter` merged into it, to `out`. Raises ModelError where it cannot be."""
    import torch

    from engine.model.adapters import POLICY, build_roles
    from engine.model.heads import REWARD_HEAD_FILE, load_reward_head
    from engine.model.loading import load_causal_lm
    from engine.model.saving import save_weights

    if adapter is not None:
        read_adapter_config(adapter, path)
    model = load_causal_lm(path, dtype=torch.float32, device="cpu")
    roles = build_roles(model, kind="full", trained=POLICY, start_adapter=adapter)
    roles.model.to(getattr(torch, dtype))
    checkpoint = adapter or path
    head, scale = load_reward_head(checkpoint) if (checkpoint / REWARD_HEAD_FILE).is_file() else (None, None)
    save_weights(roles, out, base_folder=checkpoint, reward_head=head, reward_scale=scale)
    return {"dtype": dtype, "bytes": sum(file.stat().st_size for file in out.iterdir())}


if __name__ == "__main__":
    sys.exit(main())
