"""The memory that is reckoned is the memory that autograd, the weights and the optimizer take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.packing import Document, pack
from engine.data.token_facts import TokenFacts, token_facts
from engine.model import log_probs, memory_estimate, sampler
from engine.model.adapters import POLICY, build_roles
from engine.model.frozen_head import SLICE_BYTES
from engine.model.half_products import are_emulated
from engine.model.loading import load_causal_lm
from engine.model.memory_estimate import (
    HEAP,
    CheckpointingChoice,
    activation_bytes_a_token,
    adapter_parameters,
    choose_checkpointing,
    largest_micro_batch,
    reckon,
)
from engine.model.model_sizes import ModelSizes, read_model_sizes
from engine.run.config import RunConfig
from engine.run.config_layers import resolve

FACTS = TokenFacts(mean=100.0, deviation=0.0, longest=100, scored_share=0.5)


def config_of(method: str = "sft", **settings: Any) -> RunConfig:
    layer: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, _, name = key.partition("__")
        layer.setdefault(section, {})[name] = value
    return resolve(method, [("test", layer)]).config


@pytest.fixture(scope="module")
def sizes(tiny_model_folder: Path) -> ModelSizes:
    found = read_model_sizes(tiny_model_folder)
    assert found is not None
    return found


def test_sizes_are_those_of_the_loaded_model(tiny_model_folder: Path, sizes: ModelSizes) -> None:
    model = load_causal_lm(tiny_model_folder, dtype=torch.float32, device="cpu")
    assert sizes.parameters == sum(p.numel() for p in model.parameters())
    # 4 heads of 8 and 2 key/value heads of 8
    assert (sizes.query, sizes.key_value, sizes.gated, sizes.layers) == (32, 16, True, 2)
    roles = build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=4, alpha=8.0, dropout=0.0, seed=1)
    assert adapter_parameters(config_of(adapter__r=4), sizes) == sum(p.numel() for p in roles.trainable.values())


@pytest.mark.parametrize(("kind", "dtype"), [("lora", "fp32"), ("full", "fp32"), ("lora", "bf16"), ("full", "bf16")])
def test_activations_are_what_autograd_keeps(tiny_model_folder: Path, sizes: ModelSizes, kind: str, dtype: str) -> None:
    low = dtype == "bf16"
    held = torch.bfloat16 if low and kind == "lora" else torch.float32
    model = load_causal_lm(tiny_model_folder, dtype=held, device="cpu")
    roles = build_roles(model, kind=kind, trained=POLICY, start_adapter=None, rank=4, alpha=8.0, dropout=0.0, seed=1)
    if low and kind == "full":
        roles.autocast = torch.bfloat16
    batch = pack([Document([5] * 64, [False] * 32 + [True] * 32)] * 4)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.numel() >= len(batch.ids_T):
            saved[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # alive, so that no other tensor gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        roles.hidden(batch, POLICY)
    # Where the machine would emulate half precision, full fine-tuning works in fp32.
    worked = 4 if kind == "full" and are_emulated(torch.bfloat16) else 2
    expected = activation_bytes_a_token(
        config_of(adapter__kind=kind, adapter__r=4), sizes, worked if low else 4, checkpointing=False
    )
    assert sum(saved.values()) / len(batch.ids_T) == pytest.approx(expected, rel=0.15)


def test_the_parts_by_hand(sizes: ModelSizes) -> None:
    n = sizes.parameters
    full = reckon(config_of(adapter__kind="full"), sizes, FACTS, checkpointing=False, cuda=True)
    # fp32 weights and their bf16 copies under autocast, a gradient, two moments, the frozen reference
    assert (full.weights, full.gradients, full.optimizer, full.reference) == (6 * n, 4 * n, 8 * n, 4 * n)
    assert full.comparable == full.total - full.floor
    lora = reckon(config_of(adapter__r=4), sizes, FACTS, checkpointing=False, cuda=False)
    assert lora.weights == 4 * n
    assert lora.optimizer == 2 * lora.gradients == 2 * lora.adapter
    assert lora.comparable == lora.total
    # 16 examples of 100 tokens, half of them scored, 300 words, fp32, three copies
    assert lora.logits == 16 * 50 * 300 * 4 * 3
    assert reckon(config_of("reward"), sizes, FACTS, checkpointing=False, cuda=False).logits == 0


def test_logits_are_those_of_a_slice_of_the_head_that_is_used(sizes: ModelSizes) -> None:
    assert memory_estimate.FROZEN_LOGITS_BYTES == SLICE_BYTES
    assert memory_estimate.LOGITS_BYTES_AT_ONCE == log_probs.LOGITS_BYTES_AT_ONCE
    assert memory_estimate.SAMPLED_ROWS_AT_ONCE == sampler.ROWS_AT_ONCE
    assert memory_estimate.CACHE_BYTES_AT_ONCE == sampler.CACHE_BYTES_AT_ONCE
    wide = replace(sizes, vocabulary=10**6)

    def logits(cuda: bool, **settings: Any) -> int:
        config = config_of(train__precision="fp32", **settings)
        return reckon(config, wide, FACTS, checkpointing=False, cuda=cuda).logits

    # 800 scored tokens of 10^6 words are 3.2 GB: more than a slice of either head.
    assert [logits(cuda) for cuda in (False, True)] == [3 * 32 * 2**20, 3 * 2**30]
    assert {logits(False, adapter__kind="full"), logits(False, sft__label_smoothing=0.1)} == {3 * 256 * 2**20}


def test_ppo_keeps_rollouts_and_its_sampler_a_cache(sizes: ModelSizes) -> None:
    config = config_of("ppo", train__batch_size=200, ppo__max_new_tokens=50, ppo__value_model="head", adapter__r=4)
    small, wide = (
        reckon(config, replace(sizes, vocabulary=words), FACTS, checkpointing=False, cuda=False) for words in (2, 10**6)
    )
    # 4,096 tokens at one time, 50 of each 150 of them sampled and so scored; two words.
    assert small.logits == 4096 * 50 / 150 * 2 * 4 * 3
    # Hidden states of 200 x 50 tokens, 32 wide, fp32.
    assert small.rollouts == 200 * 50 * 32 * 4
    # 128 rows at a time: 2 layers of 16 keys and 16 values for 100 + 50 tokens; the logits of two steps, and 8 bytes
    # more a word; and the adapted weights with the adapter folded in.
    folded = 4 * sizes.block_parameters
    sampling = 128 * (2 * 2 * 16 * 4 * 150 + 10**6 * (2 * 4 + 8) * HEAP) + folded
    training = wide.activations + wide.gradients + wide.logits - wide.overlap
    assert wide.rollouts == small.rollouts + sampling - training
    # The policy's adapter and the reward model's; one more of each that the run begins from or trains.
    one = adapter_parameters(config, sizes) * 4
    assert small.adapter == 2 * one
    begun = replace(config, model=replace(config.model, adapter="runs/x"))
    assert reckon(begun, sizes, FACTS, checkpointing=False, cuda=False).adapter == 3 * one
    valued = replace(config, ppo=replace(config.ppo, value_model="adapter"))
    assert reckon(valued, sizes, FACTS, checkpointing=False, cuda=False).adapter == 3 * one
    # 10 prompts with 8 completions of 64 tokens each: fewer rows than at one time, and no hidden states are kept.
    group = reckon(
        config_of("grpo", train__batch_size=10),
        replace(sizes, vocabulary=10**6),
        FACTS,
        checkpointing=False,
        cuda=False,
    )
    sampling = 80 * (2 * 2 * 16 * 4 * (100 + 64) + 10**6 * (2 * 4 + 8) * HEAP) + folded
    assert group.rollouts == sampling - (group.activations + group.gradients + group.logits - group.overlap)
    apart = replace(config, train=replace(config.train, merged_sampling=False))
    without = reckon(apart, replace(sizes, vocabulary=10**6), FACTS, checkpointing=False, cuda=False)
    assert wide.rollouts - without.rollouts == folded
    silent = config_of("dpo", probe__prompts=0)
    assert reckon(silent, replace(sizes, vocabulary=10**6), FACTS, checkpointing=False, cuda=False).rollouts == 0


def test_checkpointing_keeps_less_and_a_longer_example_more(sizes: ModelSizes) -> None:
    deep = replace(sizes, layers=20)
    plain, again = (reckon(config_of(), deep, FACTS, checkpointing=on, cuda=True) for on in (False, True))
    assert again.activations < plain.activations / 5
    longer = replace(FACTS, longest=9000)
    assert reckon(config_of(), deep, longer, checkpointing=False, cuda=True).activations > 5 * plain.activations


def test_the_largest_micro_batch_fits_and_the_next_does_not(sizes: ModelSizes) -> None:
    config = config_of(train__batch_size=1000)
    free = 500_000_000
    found = largest_micro_batch(config, sizes, FACTS, free, checkpointing=False, cuda=False)

    def total(tokens: int) -> int:
        asked = replace(config, train=replace(config.train, tokens_per_micro_batch=tokens))
        return reckon(asked, sizes, FACTS, checkpointing=False, cuda=False).total

    assert total(found) <= free < total(found + 256)
    assert largest_micro_batch(config, sizes, FACTS, 1000, checkpointing=False, cuda=False) == 0
    # A step of 1,000 examples of 100 tokens has 100,000: more than that would change nothing.
    assert largest_micro_batch(config, sizes, FACTS, 2**60, checkpointing=False, cuda=False) == 391 * 256


def test_activations_are_worked_again_where_the_run_does_not_fit_without(sizes: ModelSizes) -> None:
    deep = replace(sizes, layers=4000)
    for cuda in (False, True):
        without, within = (reckon(config_of(), deep, FACTS, checkpointing=on, cuda=cuda).total for on in (False, True))
        assert within < 0.8 * without
        # A tenth of what is free is left for what the estimate misses.
        for free, on in ((without / 0.89, False), (without / 0.91, True), (within, True)):
            choice = choose_checkpointing(config_of(), deep, FACTS, round(free), cuda=cuda)
            assert choice.on is on
            assert choice.why.startswith("auto: about ")
            assert f"{free / 1e9:,.1f} GB free {'on the GPU' if cuda else 'in memory'}" in choice.why
            assert ("tokens_per_micro_batch" in choice.why) == (free == within)


def test_what_is_asked_for_is_done_and_what_is_not_known_is_said(sizes: ModelSizes) -> None:
    for asked in ("on", "off"):
        choice = choose_checkpointing(
            config_of(train__activation_checkpointing=asked), sizes, FACTS, 1 if asked == "off" else 2**60, cuda=False
        )
        assert choice == CheckpointingChoice(asked == "on", "as train.activation_checkpointing says")
    unknown: list[tuple[Any, Any, int | None]] = [(None, FACTS, 1), (sizes, None, 1), (sizes, FACTS, None)]
    for known in unknown:
        choice = choose_checkpointing(config_of(), *known, cuda=True)
        assert not choice.on
        assert "not" in choice.why


def test_a_value_with_an_adapter_of_its_own_trains_it_beside_the_policys(sizes: ModelSizes) -> None:
    alone, both = (
        reckon(config_of("ppo", ppo__value_model=model), sizes, FACTS, checkpointing=False, cuda=False)
        for model in ("head", "adapter")
    )
    # Beside the policy's stands the reward model's, which does not train.
    assert (2 * both.adapter, both.optimizer) == (3 * alone.adapter, 2 * alone.optimizer)
    assert both.activations == alone.activations


def test_a_pair_counts_its_prompt_once() -> None:
    from engine.data.examples import PreferenceExample

    pairs = [
        PreferenceExample("a", (1, 2), (3,), (4, 5), 1.0, None, "g"),
        PreferenceExample("b", (1,), (2,), (3,), 1, None, "h"),
    ]
    facts = token_facts(pairs)
    # 5 and 3 tokens, of which 3 and 2 are answers
    assert facts == TokenFacts(4.0, 1.0, 5, 5 / 8)
    # 7 and 4 tokens where each answer has a prompt of its own
    assert token_facts(pairs, share_prompts=False) == TokenFacts(5.5, 1.5, 7, 5 / 11)
    assert token_facts([]) is None
