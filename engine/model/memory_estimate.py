"""What a run needs of memory, before it runs: one reckoning for the launch form, the dry run and the engine itself.

Owns the count, part by part: weights, adapters, gradients, optimizer, activations, logits, the reference, and the floor
that the program and its libraries take. Everything is in bytes and an estimate; each finished run compares it with its
measured peak (on a CPU the resident memory, on CUDA what torch allocated, to which the floor does not belong).

Activations are what autograd keeps for the backward pass of one micro-batch, counted operation by operation for a
pre-norm decoder (Korthikanti et al. 2022, arXiv:2205.05198, with the attention kernel that keeps no score matrix, and
with what LoRA adds). With activation checkpointing each block keeps its input alone and one block is worked again at a
time. The head runs at scored tokens only, in slices of at most 256 MB of logits. Torch-free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

from engine.data.token_facts import TokenFacts
from engine.model.model_sizes import ModelSizes, read_model_sizes
from engine.run.config import RunConfig, reads_reference
from engine.run.method_names import ON_ROLLOUTS

FP32 = 4
FLOOR_BYTES = {"cpu": 385_000_000, "cuda": 600_000_000}
"""What a process holds beside all that is counted here: torch, transformers and peft, resident, and what a first step
sets up; on CUDA the context. For the CPU measured with torch 2.13, as the peak of runs of small steps less the other
parts (375 to 400 MB); that of CUDA is what is commonly seen and has not been measured here."""
HEAP = 1.6
"""Resident bytes for each byte of activations on a CPU: the C library keeps what is freed between what is not. Measured
with SmolLM2-135M: 2.0 in a run of SFT, 1.3 in the first step of DPO in bf16. Without its heap (every block
mapped) it would be 1.2, but a small model would take twice the time."""
SHARE_OF_FREE = 0.9
"""Of the memory that is free a run may be expected to take so much; the rest is for what the estimate misses."""
LOGITS_BYTES_AT_ONCE = 256 * 2**20
FROZEN_LOGITS_BYTES = {"cpu": 32 * 2**20, "cuda": 2**30}
SAMPLED_ROWS_AT_ONCE = 128
CACHE_BYTES_AT_ONCE = 2 * 2**30
"""As engine.model.log_probs, frozen_head and sampler, which load torch. The last is of a CPU."""
DRAW_BYTES = 4 + 4
"""Of each word of the vocabulary and row, while a token is drawn: scaled logits in fp32, and their masses."""
TOKENS_APART = 256
"""Between micro-batch sizes that are proposed."""
LOGIT_COPIES = 3
"""Alive at one time: fp32 logits, their gradient through log-sum-exp, and that through the target's logit; of a head
that is not trained log-probs, their exponentials and the product of both, where the entropy is measured."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes, by what holds them."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    """Both moments of AdamW."""
    activations: int
    logits: int
    reference: int
    """A frozen copy of the weights (full fine-tuning)."""
    rollouts: int
    """What PPO keeps of a step's rollouts, and what the sampler needs beyond what a training pass needs, which runs at
    another time."""
    floor: int
    overlap: int
    """What of gradients and activations is not there at one time: a lone micro-batch frees the one for the other."""
    on_device: bool
    """Whether the measured peak is that of a CUDA device, without the floor."""

    @property
    def total(self) -> int:
        """The peak of the process, floor included."""
        return sum(int(getattr(self, part)) for part in PARTS) - self.overlap

    @property
    def comparable(self) -> int:
        """What the measured peak is compared with."""
        return self.total - self.floor if self.on_device else self.total


PARTS = tuple(f.name for f in fields(MemoryEstimate) if f.name not in ("overlap", "on_device"))
"""The parts that add up, less the overlap, to the total."""


def estimate_memory(
    config: RunConfig, model_folder: Path, facts: TokenFacts, *, checkpointing: bool, cuda: bool
) -> MemoryEstimate | None:
    """The estimate; None where the model's files do not say enough."""
    sizes = read_model_sizes(model_folder)
    return None if sizes is None else reckon(config, sizes, facts, checkpointing=checkpointing, cuda=cuda)


def reckon(
    config: RunConfig, sizes: ModelSizes, facts: TokenFacts, *, checkpointing: bool, cuda: bool
) -> MemoryEstimate:
    """The estimate for a model of these sizes."""
    full = config.adapter.kind == "full"
    compute = compute_bytes(config, cuda)
    trained = sizes.parameters if full else adapter_parameters(config, sizes)
    if config.run.method == "ppo" and config.ppo.value_model == "adapter":
        trained *= 2  # the value's is the reward model's, of a rank that is taken to be the policy's
    step_tokens = _tokens_of_a_step(config, facts)
    tokens = max(facts.longest, min(config.train.tokens_per_micro_batch, step_tokens))
    a_token = activation_bytes_a_token(config, sizes, compute, checkpointing=checkpointing, cuda=cuda)
    if sizes.softcap:
        a_token += sizes.query_heads * facts.longest * FP32 * (1 if checkpointing else sizes.layers)
    activations = round(tokens * a_token * (1 if cuda else HEAP))
    gradients = trained * FP32
    alone = step_tokens <= config.train.tokens_per_micro_batch
    overlap = min(gradients, activations) if alone else 0
    each, new = sampled(config)
    share = each * new / (facts.mean + each * new) if new else facts.scored_share
    logits = _logit_bytes(config, sizes, tokens * share, compute, cuda)
    kept, sampling = _rollout_bytes(config, sizes, facts, compute, cuda)
    return MemoryEstimate(
        weights=_weight_bytes(config, sizes, compute) + config.rewards.apart_parameters * compute,
        adapter=0 if full else trained * FP32 + _frozen_adapters(config) * adapter_parameters(config, sizes) * FP32,
        gradients=gradients,
        optimizer=2 * trained * FP32,
        activations=activations,
        logits=logits,
        reference=sizes.parameters * FP32 if full and reads_reference(config) else 0,
        rollouts=kept + max(0, sampling - (activations + gradients + logits - overlap)),
        floor=FLOOR_BYTES["cuda" if cuda else "cpu"],
        overlap=overlap,
        on_device=cuda,
    )


@dataclass(frozen=True)
class CheckpointingChoice:
    """Whether activations are worked again in the backward pass, and why, in words."""

    on: bool
    why: str


def choose_checkpointing(
    config: RunConfig, sizes: ModelSizes | None, facts: TokenFacts | None, free_bytes: int | None, *, cuda: bool
) -> CheckpointingChoice:
    """What train.activation_checkpointing asks for; for "auto", whether the run fits without into `free_bytes`.

    `free_bytes` is what there is for the whole process, its floor included; None or 0 where the machine does not say.
    Loss and gradients are the same bits either way, so a resume may choose otherwise than the attempt before.
    """
    asked = config.train.activation_checkpointing
    if asked != "auto":
        return CheckpointingChoice(asked == "on", "as train.activation_checkpointing says")
    if sizes is None or facts is None:
        return CheckpointingChoice(False, "auto: what this model needs is not known from its files")
    if not free_bytes:
        return CheckpointingChoice(False, "auto: this machine does not say how much memory is free")
    without, within = (reckon(config, sizes, facts, checkpointing=on, cuda=cuda).total for on in (False, True))
    free = f"{_gigabytes(free_bytes)} free {'on the GPU' if cuda else 'in memory'}"
    if without <= SHARE_OF_FREE * free_bytes:
        return CheckpointingChoice(False, f"auto: about {_gigabytes(without)} needed, {free}")
    why = f"auto: about {_gigabytes(without)} needed without, {_gigabytes(within)} with, {free}"
    if within > SHARE_OF_FREE * free_bytes:
        why += "; lower train.tokens_per_micro_batch if that is too little"
    return CheckpointingChoice(True, why)


def largest_micro_batch(
    config: RunConfig, sizes: ModelSizes, facts: TokenFacts, free_bytes: int, *, checkpointing: bool, cuda: bool
) -> int:
    """The greatest train.tokens_per_micro_batch, in whole 256 tokens, that fits into `free_bytes`; 0 where none does.

    Not more than a step has: beyond that it changes nothing.
    """

    def fits(tokens: int) -> bool:
        asked = replace(config, train=replace(config.train, tokens_per_micro_batch=tokens))
        return reckon(asked, sizes, facts, checkpointing=checkpointing, cuda=cuda).total <= free_bytes

    low, high = 0, max(1, math.ceil(_tokens_of_a_step(config, facts) / TOKENS_APART))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * TOKENS_APART) else (low, middle - 1)
    return low * TOKENS_APART


def activation_bytes_a_token(
    config: RunConfig, sizes: ModelSizes, compute: int, *, checkpointing: bool, cuda: bool = False
) -> float:
    """What autograd keeps of one token until its backward pass."""
    block = _block_bytes(config, sizes, compute, cuda)
    residual = compute * sizes.hidden
    kept = sizes.layers * residual + block if checkpointing else sizes.layers * block
    # The embedding's output, the last norm's input and its output.
    return kept + 3 * residual


def adapter_parameters(config: RunConfig, sizes: ModelSizes) -> int:
    """Rank times (rows + columns) of every linear layer that is a target; DoRA adds a number for each row."""
    named = [part.strip() for part in config.adapter.targets.split(",")]
    chosen = [
        shape
        for name, shape in sizes.matrices.items()
        if named == ["all-linear"] or any(f".{part}." in name for part in named)
    ]
    return sum(config.adapter.r * sum(shape) + (shape[0] if config.adapter.dora else 0) for shape in chosen)


def _block_bytes(config: RunConfig, sizes: ModelSizes, compute: int, cuda: bool) -> float:
    """What one block keeps of one token without checkpointing; the tests compare it with what autograd has saved."""
    hidden, query, key_value, wide = sizes.hidden, sizes.query, sizes.key_value, sizes.intermediate
    heads = 2 * query + 2 * key_value  # queries, keys, values, and what the kernel gives
    before, behind = (3, 2) if sizes.gated else (3, 1)  # layers that read the first norm's output, and the second's
    low = compute < FP32
    if config.adapter.kind == "full":
        # Both norms keep their input and their output before the weight, in fp32; autocast gives each layer its copy.
        copies = (before + behind) * hidden if low else 2 * hidden
        return FP32 * 4 * hidden + compute * (heads + query + copies + (4 if sizes.gated else 2) * wide)
    ranks = config.adapter.r * (before + behind + 2)
    plain = config.adapter.kind == "lora" and not config.adapter.dora and config.adapter.dropout == 0
    if sizes.few_passes and plain and not cuda:
        # `gated_block`: what it reads, the sum behind attention, attention's output, gate and up, and the open gate.
        return compute * (heads + 2 * hidden + query + 3 * wide) + FP32 * ranks
    # The norms work in fp32; what layers with the same input read is kept once, for their adapters alone.
    inputs = 2 * hidden + query + (4 if sizes.gated else 2) * wide
    return FP32 * 2 * hidden + compute * (heads + inputs + ranks)


def _weight_bytes(config: RunConfig, sizes: ModelSizes, compute: int) -> int:
    if config.adapter.kind == "full":
        # Autocast keeps the weights of a forward pass in the lower precision beside those in fp32.
        return sizes.parameters * (FP32 + (compute if compute < FP32 else 0))
    if config.adapter.kind == "qlora":
        # Half a byte a weight and a scale for each 64; embedding, head and norms stay as they are computed.
        return round(sizes.block_parameters * 0.56) + (sizes.parameters - sizes.block_parameters) * compute
    return sizes.parameters * compute


def _frozen_adapters(config: RunConfig) -> int:
    """Adapters that are not trained, of a rank that is taken to be the policy's: the one that the run began from stays
    beside its copy as the reference, and the reward model that judges rollouts is one."""
    return bool(config.model.adapter) + _reward_adapters(config)


def _reward_adapters(config: RunConfig) -> int:
    """Reward models that are adapters over the run's base; where none is named, one is expected, unless functions
    judge alone."""
    if config.run.method not in ON_ROLLOUTS:
        return 0
    model, rewards = config.model, config.rewards
    named = [(model.reward_path, model.reward_adapter), *zip(rewards.more_paths, rewards.more_adapters, strict=False)]
    there = [adapter for path, adapter in named if path or adapter]
    if not there:
        return int(not rewards.functions)
    return sum(bool(adapter) and path == model.path for path, adapter in named)


def _rollout_bytes(
    config: RunConfig, sizes: ModelSizes, facts: TokenFacts, compute: int, cuda: bool
) -> tuple[int, int]:
    """What is kept of a step's rollouts for its updates, and what the sampler of rollouts or of the probe takes."""
    on_rollouts = config.run.method in ON_ROLLOUTS
    if config.run.method == "reward" or not (on_rollouts or config.probe.prompts):
        return 0, 0
    rows, new = config.probe.prompts, config.probe.max_new_tokens
    if on_rollouts:
        each, new = sampled(config)
        rows = config.train.batch_size * each
    # Every row of a batch has room for the longest prompt, as far as lengths of prompts are known.
    prompt = facts.longest if on_rollouts else facts.longest * (1 - facts.scored_share)
    held = FP32 if config.adapter.kind == "full" else compute
    at_once = min(rows, SAMPLED_ROWS_AT_ONCE)
    cache = at_once * 2 * sizes.layers * sizes.key_value * held * (prompt + new)
    if not cuda:
        cache = min(cache, CACHE_BYTES_AT_ONCE)
    # The logits of the step before are still there when the next ones come.
    drawing = at_once * sizes.vocabulary * (2 * held + DRAW_BYTES) * (1 if cuda else HEAP)
    # The hidden state that each token's value is read from, in fp32.
    kept = rows * new * sizes.hidden * FP32 if config.run.method == "ppo" else 0
    merged = config.train.merged_sampling and config.adapter.kind == "lora" and not config.adapter.dora
    folded = sizes.block_parameters * held if merged else 0
    return kept, round(cache + drawing + folded)


def _logit_bytes(config: RunConfig, sizes: ModelSizes, scored: float, compute: int, cuda: bool) -> int:
    if config.run.method == "reward":
        return 0
    smoothed = config.run.method == "sft" and config.sft.label_smoothing > 0
    frozen = config.adapter.kind != "full" and not smoothed
    most = FROZEN_LOGITS_BYTES["cuda" if cuda else "cpu"] if frozen else LOGITS_BYTES_AT_ONCE
    at_once = min(scored * sizes.vocabulary * FP32, most)
    return round(at_once * (LOGIT_COPIES + (compute / FP32 if compute < FP32 else 0)))


def _tokens_of_a_step(config: RunConfig, facts: TokenFacts) -> float:
    """Of a large step: two standard deviations above the mean of the sum."""
    examples = float(config.train.batch_size)
    mean, deviation = facts.mean, facts.deviation
    each, new = sampled(config)
    # A prompt goes through the model once for its group.
    mean += each * new
    if config.run.method in ON_ROLLOUTS:
        examples /= getattr(config, config.run.method).minibatches
    return mean * examples + 2 * deviation * math.sqrt(examples)


def sampled(config: RunConfig) -> tuple[int, int]:
    """Completions sampled for each prompt of a step, and the tokens of each at most; 0 without rollouts."""
    if config.run.method == "ppo":
        return 1, config.ppo.max_new_tokens
    if config.run.method in ON_ROLLOUTS:
        grouped = config.grpo if config.run.method == "grpo" else config.rloo
        return grouped.generations, grouped.max_new_tokens
    return 0, 0


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2g} GB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def compute_bytes(config: RunConfig, cuda: bool) -> int:
    """Of a number as the model works with it."""
    precision = config.train.precision
    return 2 if precision == "bf16" or (precision == "auto" and cuda) else FP32
