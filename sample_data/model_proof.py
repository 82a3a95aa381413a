"""Shows that the script of the sample model makes it again, and keeps what it showed for as long as it holds.

    python -m sample_data.model_proof

trains the model anew in a temporary folder, about 7 minutes on 2 threads, compares its held-out loss with that of
`model/`, and writes `model_proof.json`: that loss, how the training loss went, and all that decides both, which is the
sources and the versions of the libraries. While none of that has changed, the first steps of a training are enough to
see that the script still does the same; when something has, the whole is to be trained again.
"""

import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from sample_data import ROOT, files

SOURCES = ("make_model.py", "texts.py", "workshop.py", "data/heldout_sft.jsonl")
LIBRARIES = ("torch", "transformers", "tokenizers")
TOLERANCE = 0.02
"""Relative; another processor rounds differently."""
WINDOW = 50
"""Steps whose losses are averaged to one figure."""
ALIKE_WINDOWS = 2
"""Windows in which rounding does not show: weights that began a ten-millionth apart agreed to 1e-5 in the first two, to
0.4 percent in the third and to 8 in the fourth."""


@dataclass(frozen=True)
class Proof:
    """What a whole training came to, and what it was made with."""

    made_with: dict[str, str]
    """The sha256 of each source and the version of each library."""
    heldout_loss_nats_per_token: float
    loss_by_window: list[float]
    """Means of the weighted training loss over `WINDOW` steps each."""


def made_with() -> dict[str, str]:
    """All that decides the model now, the processor aside."""
    sums = {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in SOURCES}
    return sums | {name: version(name).split("+")[0] for name in LIBRARIES}


def kept_proof() -> Proof:
    """The last proof that was written."""
    return Proof(**json.loads((ROOT / "model_proof.json").read_text(encoding="utf-8")))


def loss_of_the_kept_model() -> float:
    """Held-out loss of `model/` when it was made, nats per token."""
    report = json.loads((files()["model"] / "TRAINING.json").read_text(encoding="utf-8"))
    return float(report["heldout_loss_nats_per_token"])


def by_window(losses: list[float]) -> list[float]:
    """Means over `WINDOW` steps each; what is left over at the end is left out."""
    starts = range(0, len(losses) - WINDOW + 1, WINDOW)
    return [round(fmean(losses[start : start + WINDOW]), 5) for start in starts]


def prove(out: Path) -> Proof:
    """Train the whole model anew into `out`."""
    from sample_data.make_model import Recipe, make

    loss, losses = make(Recipe(), out)
    return Proof(made_with(), round(loss, 5), by_window(losses))


def main() -> int:
    """Entry point: 0 and a new proof where the losses agree, 1 and the old one where they do not."""
    with tempfile.TemporaryDirectory() as out:
        proof = prove(Path(out))
    kept, again = loss_of_the_kept_model(), proof.heldout_loss_nats_per_token
    print(f"held-out loss {again:.4f} nats per token, of the kept model {kept:.4f}")
    if abs(again - kept) > TOLERANCE * kept:
        return 1
    (ROOT / "model_proof.json").write_text(json.dumps(vars(proof), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
