"""QLoRA's base: linear layers held in 4 bits, for adapters that train in fp32 over them (Dettmers et al. 2023).

NF4 with double quantization (arXiv:2305.14314, section 3): each block of 64 weights is 4-bit codes and one scale, and
the scales are 8-bit codes themselves, about 0.52 bytes a weight. Products are in the run's precision. The kernels are
bitsandbytes's, an optional dependency (the extra `qlora`); runs are launched on CUDA only, and that has not run yet.
Torch-free: a launch asks here first.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from engine.errors import ConfigError

PACKAGE = "bitsandbytes"
BYTES_A_WEIGHT = 0.5 + (1 + 4 / 256) / 64
"""A code of 4 bits; for each 64 of them a scale of 8 bits, for each 256 of those a scale in fp32."""


def four_bit_fault(device: str) -> str | None:
    """Why a run with adapter.kind = "qlora" cannot be on `device` ("cpu" or "cuda") here, and what to do; or None."""
    if device == "cpu":
        return (
            'adapter.kind = "qlora" holds the base in 4 bits and needs an NVIDIA device for that; this run would be on '
            "the CPU. Set adapter.kind=lora (the same adapters over the base in full)"
        )
    if find_spec(PACKAGE) is None:
        return (
            f'adapter.kind = "qlora" needs the package {PACKAGE}, which is not installed: '
            "pip install 'workbench[qlora]', or set adapter.kind=lora"
        )
    return None


def quantization_settings() -> dict[str, Any]:
    """What transformers' BitsAndBytesConfig needs to be told beside the precision. Raises ConfigError."""
    if find_spec(PACKAGE) is None:
        raise ConfigError(four_bit_fault("cuda") or "")
    return {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
