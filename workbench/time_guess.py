"""How long a step may take where nothing like it has run here: a guess from the arithmetic of the model.

Owns that reckoning. It counts multiplications (of training passes, of LoRA, of the head, and for methods on rollouts of
sampling and scoring), what memory moves, and what an operation costs however small it is, at a rate of arithmetic that
is measured on this CPU. Invariant: it is a guess and is called one, with a wide range; a run that has ended here takes
its place. On a GPU nothing is measured. Loads no torch.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from engine.model.memory_estimate import activation_bytes_a_token, adapter_parameters, compute_bytes, sampled
from engine.model.model_sizes import ModelSizes
from engine.run.config import RunConfig
from engine.run.method_names import ON_ROLLOUTS
from workbench.launch_device import usable_cores

if TYPE_CHECKING:
    from engine.data.token_facts import TokenFacts

CUDA_FLOPS_A_SECOND = 40e12
"""Of one GPU; stated, not measured."""
MATRIX = 384
"""Rows and columns of the product that is timed: about what a layer of a small model multiplies."""
PRODUCTS = 5
BYTES_A_SECOND = {"cpu": 8e9, "cuda": 2e12}
OPERATION_S = {"cpu": 15e-6, "cuda": 8e-6}
"""What the smallest operation takes."""
OPERATIONS_A_BLOCK = 150
"""In a forward pass, LoRA's and the library's own among them; twice as many go backward."""
SHARE_REACHED = 0.5
"""Of the rate of one product, by the products of a training pass: the README has 0.38 to 0.41 for a real model."""
ROWS_AT_ONCE = 128
"""As engine.model.sampler, which loads torch."""
TIMES_WRONG = 3.0
"""The range goes to so many times less and more."""
ANSWERS = (0.3, 0.6, 1.0)
"""Length of answers as a share of the longest: of the low end, the middle and the high end."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step."""

    seconds: float
    low: float
    high: float
    """Both are `seconds` where it is known."""
    measured: bool
    """Whether a run like it has ended here."""
    why: str
    """Where it comes from, in words."""


@dataclass(frozen=True)
class StepWork:
    """What one optimizer step has to do."""

    tokens: float
    """That go through the model in one pass over the step."""
    scored: float
    """Those at which the head runs."""
    passes: float
    """With a gradient."""
    looks: float
    """Without one."""
    micro_batches: int
    """Of a pass."""
    rows: int
    """Completions that are sampled."""
    new: float
    """Tokens of each."""


def guess_step(config: RunConfig, sizes: ModelSizes, lengths: TokenFacts, *, checkpointing: bool) -> StepTime:
    """The guess for a step, and its range."""
    if config.train.device == "cuda":
        rate, how = CUDA_FLOPS_A_SECOND, "stated, not measured"
    else:
        rate = core_flops_a_second() * min(config.train.threads or usable_cores(), usable_cores())
        how = "measured just now on this CPU"
    low, middle, high = (
        guessed_step_s(config, sizes, lengths, checkpointing=checkpointing, rate=rate, answers=share)
        for share in ANSWERS
    )
    why = f"reckoned at {rate / 1e9:,.0f} GFLOP a second, {how}"
    return StepTime(middle, low / TIMES_WRONG, high * TIMES_WRONG, False, why)


@cache
def core_flops_a_second() -> float:
    """Operations a second of one core in fp32, by CPU time, so that what else runs here does not count; the best of a
    few products of two matrices, some 20 ms in all."""
    import numpy as np

    matrix: Any = np.ones((MATRIX, MATRIX), dtype=np.float32)
    shortest = math.inf
    for _ in range(PRODUCTS):
        started = time.process_time()
        matrix @ matrix
        shortest = min(shortest, max(time.process_time() - started, 1e-6))
    return 2.0 * MATRIX**3 / shortest


def guessed_step_s(
    config: RunConfig, sizes: ModelSizes, lengths: TokenFacts, *, checkpointing: bool, rate: float, answers: float
) -> float:
    """Seconds of one step at `rate` operations a second; completions have `answers` of their greatest length."""
    work = work_of(config, lengths, answers)
    device, full = ("cuda" if config.train.device == "cuda" else "cpu"), config.adapter.kind == "full"
    compute = compute_bytes(config, config.train.device == "cuda")
    block, head = sizes.block_parameters, sizes.head_parameters
    adapter = 0 if full else adapter_parameters(config, sizes)
    # Forward 2, backward 2 through the weights and 2 more into them where they train; LoRA's always do.
    trained = ((6 if full else 4) + 2 * checkpointing) * block + 6 * adapter
    operations = work.passes * (work.tokens * trained + work.scored * 6 * head)
    operations += work.looks * 2 * (work.tokens * (block + adapter) + work.scored * head)
    kept = activation_bytes_a_token(config, sizes, compute, checkpointing=checkpointing)
    moved = work.passes * 3 * work.tokens * kept  # written, read, and its gradient
    calls = work.micro_batches * (3 * work.passes + work.looks)
    if work.rows:
        batches = math.ceil(work.rows / ROWS_AT_ONCE)
        operations += 2 * (work.tokens * (block + adapter) + work.scored * head)
        moved += batches * work.new * (block + head) * compute  # every weight is read for every token
        calls += batches * work.new
    smallest = calls * sizes.layers * OPERATIONS_A_BLOCK * OPERATION_S[device]
    return operations / (rate * SHARE_REACHED) + moved / BYTES_A_SECOND[device] + smallest


def work_of(config: RunConfig, lengths: TokenFacts, answers: float) -> StepWork:
    """What a step of this run does; `lengths` are of its examples, which are prompts for methods on rollouts."""
    method, tokens, portion = config.run.method, lengths.mean * config.train.batch_size, config.train
    if method not in ON_ROLLOUTS:
        scored = 0.0 if method == "reward" else tokens * lengths.scored_share
        cut = math.ceil(tokens / portion.tokens_per_micro_batch)
        return StepWork(tokens, scored, 1.0, 1.0 if method == "kto" else 0.0, cut, 0, 0.0)
    each, longest = sampled(config)
    rows, new = portion.batch_size * each, longest * answers
    tokens += rows * new
    section = getattr(config, method)
    with_value = method == "ppo" and config.ppo.value_model == "adapter"
    cut = max(section.minibatches, math.ceil(tokens / portion.tokens_per_micro_batch))
    # The reward model and the reference look once; the value trains beside the policy.
    return StepWork(tokens, rows * new, section.epochs * (2.0 if with_value else 1.0), 2.0, cut, rows, new)
