"""The arithmetic that training asks of a device, and what devices can do: what model FLOPs utilisation is made of.

Owns the definition of model FLOPs: the arithmetic that the method asks for, whatever is done for it. 4 for each
weight of a matrix product and token with LoRA (2 forward, 2 for the gradient of its input), 6 where the weight trains;
the LM head counts at the rows at which it is computed; attention counts each query and key that see each other, 4 times
their width forward and twice that backward (as Chowdhery et al. 2022, arXiv:2204.02311, appendix B, for full training).
What is worked again (activation checkpointing, attention's scores) does not count, nor do adapters, norms and
embeddings. Loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.model.model_sizes import ModelSizes

if TYPE_CHECKING:
    from engine.data.packing import PackedBatch

SHEET_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121,
    "RTX 4090": 165, "RTX 3090": 71,
}  # fmt: skip
"""Dense bf16 with fp32 sums by NVIDIA's data sheets, TFLOP/s; the first name that the card's name holds counts."""


@dataclass(frozen=True)
class Arithmetic:
    """Of passes through the model."""

    tokens: int = 0
    """That go through it; what documents share once."""
    scored: int = 0
    """Rows of the LM head."""
    seen: int = 0
    """Pairs of a query and a key that it sees, in one layer and head."""

    def __add__(self, other: Arithmetic) -> Arithmetic:
        return Arithmetic(self.tokens + other.tokens, self.scored + other.scored, self.seen + other.seen)

    def forward(self, sizes: ModelSizes) -> float:
        """FLOPs of one forward pass."""
        return 2.0 * self._products(sizes) + self._attention(sizes)

    def training(self, sizes: ModelSizes, *, full: bool) -> float:
        """FLOPs of a forward and a backward pass."""
        return (6.0 if full else 4.0) * self._products(sizes) + 3.0 * self._attention(sizes)

    def _products(self, sizes: ModelSizes) -> float:
        """Weights of matrix products, each times the rows it is multiplied with: N T, the head at its own rows."""
        return float(sizes.block_parameters * self.tokens + sizes.head_parameters * self.scored)

    def _attention(self, sizes: ModelSizes) -> float:
        """Queries by keys and weights by values, two FLOPs a multiplication."""
        return 4.0 * sizes.query * sizes.layers * self.seen


def of_batch(batch: PackedBatch, scored: int) -> Arithmetic:
    """What a packed batch asks for, with the head at `scored` rows."""
    seen = sum(span.length * span.shared + span.length * (span.length + 1) // 2 for span in batch.spans)
    return Arithmetic(batch.tokens, scored, seen)


def sheet_tflops(card: str) -> float | None:
    """What the data sheet of `card` says; None where it is not known here."""
    return next((float(figure) for name, figure in SHEET_TFLOPS.items() if name in card), None)
