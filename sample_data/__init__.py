"""Everything needed to show the whole loop offline: a closed little world, its texts, its rule and a small model.

This package owns the bicycle workshop (`workshop`), the rule that scores an answer (`gold_rule`), the scripts that
made the files (`make_data`, `make_model`) and the files themselves. It knows nothing of training or screens, and
importing it loads no torch.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent


def files() -> dict[str, Path]:
    """Paths of the sample files by short name; `faults` and `model` are folders."""
    data = ROOT / "data"
    names = (
        "sft",
        "heldout_sft",
        "pairs",
        "preferences",
        "heldout_pairs",
        "prompts_train",
        "prompts_heldout",
    )
    paths = {name: data / f"{name}.jsonl" for name in names}
    paths["faults"] = ROOT / "faults"
    paths["model"] = ROOT / "model"
    return paths
