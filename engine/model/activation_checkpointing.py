"""Activation checkpointing: keep what enters each decoder layer, and run the layer again in the backward pass.

Memory for activations falls to one hidden state a layer and the inside of one layer; the price is one more forward pass
(6N arithmetic a token in place of 4N with LoRA). Loss and gradients are bit-equal.

Owns which layers are run again, in which state, and what is free; whether they are is decided by `memory_estimate`.
Invariant: a layer is run again exactly as it ran, with the attention of packed rows and the adapters of its role,
though both were put back since (transformers' own checkpointing knows of neither, and only of models in training).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from engine.model.attention import PACKED, attention_mode
from engine.run.memory_words import free_memory_bytes


@contextmanager
def checkpointed_layers(model: Any, in_role: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Within, a packed forward pass keeps the inputs of its decoder layers alone. `in_role` restores their adapters."""

    @contextmanager
    def again() -> Iterator[None]:
        with attention_mode(model, PACKED), in_role():
            yield

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, context_fn=lambda: (nullcontext(), again())
        )
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def free_bytes(device: torch.device, processes: int) -> int | None:
    """What is free for this process on `device` before the model lies there; None where the machine does not say.

    The memory of the host is shared by all `processes`; a GPU is one process's own.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = free_memory_bytes()
    return None if free is None else free // processes
