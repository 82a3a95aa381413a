"""Which library multiplies matrices of fp32 on this CPU: MKL, as torch does by itself, or oneDNN, which it also brings.

MKL is tuned for Intel's processors. On an AMD EPYC of the third generation, two threads, 1,160 rows through a layer
with more outputs than inputs took 43 ms by MKL and 33 by oneDNN (3,072 by 576), 12.4 and 10.2 (960 by 576), 340 rows
through an LM head of 49,152 by 576 280 and 198; a layer with fewer outputs than inputs 17 and 18. So the first kind
goes by oneDNN there, and everything else by torch's own choice. The processor's vendor and the shape decide, never a
measurement: a run that is resumed must multiply as it did.

Shapes: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

LEAST_WEIGHTS = 2**18
"""Of a matrix; oneDNN makes a program for each shape that it meets, which a smaller product would not pay for."""
FEWEST_ROWS = 16
"""Below them (a sampler's one token a sequence) the time goes into reading the weight, whoever multiplies."""
FEWEST_COLUMNS = 16
"""From so many on MKL's product in columns is as fast; 8 rows through a model of 135M parameters 136 ms, here 91."""
BLOCK, FEWEST_IN_BLOCKS = 256, 2048
"""A product in columns with many outputs goes in blocks of outputs: 16 rows through an LM head 17 ms for 25."""
STRIPE = 64
"""Columns that a product over all tokens with few rows is worked in at one time."""
_VENDOR = "AuthenticAMD"


def linear(x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """x W' + b (T, O) for x of any shape that ends in I; torch's own product wherever a gradient is to pass through."""
    outputs, inputs = weight_OI.shape
    if outputs > inputs and x_TI.numel() >= FEWEST_ROWS * inputs and _by_onednn(x_TI, weight_OI):
        y_TO: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x_TI, weight_OI, bias_O, "none", [], "")
        return y_TO
    return F.linear(x_TI, weight_OI, bias_O)


def in_columns(weight_OI: torch.Tensor, x_IR: torch.Tensor, to_OR: torch.Tensor | None = None) -> torch.Tensor:
    """W x (O, R) for a column of each of a few rows, and `to_OR` with it."""
    outputs, inputs = weight_OI.shape
    tuned = _by_onednn(x_IR, weight_OI)
    if tuned and x_IR.shape[1] < FEWEST_COLUMNS:
        y_RO: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x_IR.t().contiguous(), weight_OI, None, "none", [], "")
        return y_RO.t() if to_OR is None else y_RO.t().add_(to_OR)
    if tuned and outputs >= FEWEST_IN_BLOCKS and outputs % BLOCK == 0 and weight_OI.is_contiguous():
        blocks = outputs // BLOCK
        y_OR = torch.bmm(weight_OI.view(blocks, BLOCK, inputs), x_IR.expand(blocks, -1, -1)).view(outputs, -1)
        return y_OR if to_OR is None else y_OR.add_(to_OR)
    return weight_OI @ x_IR if to_OR is None else torch.addmm(to_OR, weight_OI, x_IR)


def summed(x_TR: torch.Tensor, y_TO: torch.Tensor) -> torch.Tensor:
    """x' y (R, O), summed over the tokens, for few columns R of x: the gradient of one matrix of a LoRA.

    In stripes of y where MKL is not at home: 1,160 tokens of 8 by 1,536 twice, beside each other in y, took 7.3 ms and
    take 4.4; 24 by 960 2.3 and 1.5.
    """
    if y_TO.shape[1] % STRIPE == 0 and _is_foreign(x_TR, y_TO):
        stripes = y_TO.shape[1] // STRIPE
        y_sTo = y_TO.unflatten(1, (stripes, STRIPE)).transpose(0, 1)
        return torch.bmm(x_TR.t().expand(stripes, -1, -1), y_sTo).transpose(0, 1).flatten(1)
    # This way round: a product with few rows is faster than one with few columns.
    return x_TR.t().contiguous() @ y_TO


def _by_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return weight.numel() >= LEAST_WEIGHTS and _is_foreign(x, weight)


def _is_foreign(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether a product of the two is one that MKL would work on a processor that it is not tuned for."""
    return (
        x.dtype == y.dtype == torch.float32
        and x.device.type == y.device.type == "cpu"
        and not torch.is_grad_enabled()
        and prefers_onednn()
    )


@cache
def prefers_onednn() -> bool:
    """Whether this machine's processor is one on which oneDNN is the faster."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("vendor_id") and line.endswith(_VENDOR) for line in lines[:20])
