"""The batched sampler: seeds and batches, log-probs, the distribution, stops, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.errors import DataError, ModelError
from engine.model import sampling_batch
from engine.model.drawing import draw, uniforms
from engine.model.key_value_cache import PreallocatedCache
from engine.model.sampler import Completion, sample

STOPS = frozenset(range(200, 230))
"""A tenth of the vocabulary, so that rows end at different steps."""
PROMPTS = [[7, 8, 9], [40], [9] * 17, [50, 51, 52, 53, 54], [7, 8, 9], [100, 4, 100, 4, 5, 6, 7], [60, 61]]
SEEDS = [11, 12, 13, 14, 15, 16, 17]


def run(model: Any, prompts: list[list[int]], seeds: list[int], **changes: Any) -> list[Completion]:
    settings: dict[str, Any] = {
        "max_new_tokens": 24,
        "temperature": 1.0,
        "stop_ids": STOPS,
        "pad_id": 3,
        **changes,
    }
    return sample(model, prompts, seeds=seeds, **settings)


def plain_log_probs(model: Any, prompt: list[int], ids: list[int], temperature: float = 1.0) -> torch.Tensor:
    """By one forward pass over the whole text, without a cache or padding."""
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].float() / temperature
    rows = logits_TV[len(prompt) - 1 : -1].log_softmax(-1)
    return rows.gather(-1, torch.tensor(ids).unsqueeze(-1)).squeeze(-1)


class TestSeeds:
    """What a row draws depends on its own seed and prompt, never on its neighbours."""

    def test_same_completions_whatever_the_batch(self, tiny_model: Any) -> None:
        together = run(tiny_model, PROMPTS, SEEDS)
        assert len({len(c.ids) for c in together}) > 2, "rows end at different steps"
        for batch_size in (1, 2, 3, 5):
            apart = run(tiny_model, PROMPTS, SEEDS, batch_size=batch_size)
            assert [c.ids for c in apart] == [c.ids for c in together]
            for a, b in zip(apart, together, strict=True):
                assert a.log_probs == pytest.approx(b.log_probs, abs=1e-5)
        order = [4, 2, 6, 0, 1, 5, 3]
        shuffled = run(tiny_model, [PROMPTS[i] for i in order], [SEEDS[i] for i in order])
        assert [c.ids for c in shuffled] == [together[i].ids for i in order]

    def test_prompts_in_groups_of_like_length(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        together = run(tiny_model, PROMPTS, SEEDS)
        monkeypatch.setattr(sampling_batch, "WORTHWHILE_TOKENS", 1)
        apart = run(tiny_model, PROMPTS, SEEDS)
        assert [c.ids for c in apart] == [c.ids for c in together]
        groups = list(sampling_batch.groups_of_like_length([tuple(p) for p in PROMPTS]))
        assert [[len(p) for p in group] for group in groups] == [[17], [7], [5], [3, 3], [2], [1]]

    def test_seed_decides(self, tiny_model: Any) -> None:
        once, again = run(tiny_model, PROMPTS, SEEDS), run(tiny_model, PROMPTS, SEEDS)
        assert once == again
        other = run(tiny_model, PROMPTS, [seed + 100 for seed in SEEDS])
        assert [c.ids for c in other] != [c.ids for c in once]
        assert once[0].ids != once[4].ids, "the same prompt with another seed"

    def test_global_generator_is_neither_read_nor_moved(self, tiny_model: Any) -> None:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = run(tiny_model, PROMPTS, SEEDS)
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(2)
        assert run(tiny_model, PROMPTS, SEEDS) == first

    def test_longer_run_begins_with_the_shorter(self, tiny_model: Any) -> None:
        short, long = (run(tiny_model, PROMPTS, SEEDS, max_new_tokens=n) for n in (5, 40))
        assert [c.ids for c in short] == [c.ids[:5] for c in long]
        assert torch.equal(uniforms(2**63 + 5, 40)[:7], uniforms(2**63 + 5, 7))
        assert not torch.equal(uniforms(1, 4), uniforms(1 + 2**40, 4))


class TestLogProbs:
    """Those of a plain forward pass, whatever was padded, cached and compacted."""

    @pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
    def test_equal_to_a_forward_pass(self, tiny_model: Any, temperature: float) -> None:
        for prompt, c in zip(PROMPTS, run(tiny_model, PROMPTS, SEEDS, temperature=temperature), strict=True):
            expected = plain_log_probs(tiny_model, prompt, c.ids, temperature)
            torch.testing.assert_close(torch.tensor(c.log_probs), expected, atol=1e-5, rtol=0)

    def test_of_the_whole_distribution_under_top_p(self, tiny_model: Any) -> None:
        for prompt, c in zip(PROMPTS, run(tiny_model, PROMPTS, SEEDS, top_p=0.5), strict=True):
            torch.testing.assert_close(
                torch.tensor(c.log_probs), plain_log_probs(tiny_model, prompt, c.ids), atol=1e-5, rtol=0
            )

    def test_greedy_takes_the_most_probable(self, tiny_model: Any) -> None:
        for prompt, c in zip(PROMPTS, run(tiny_model, PROMPTS, SEEDS, temperature=0.0), strict=True):
            with torch.no_grad():
                logits_TV = tiny_model(input_ids=torch.tensor([[*prompt, *c.ids]])).logits[0]
            assert logits_TV[len(prompt) - 1 : -1].argmax(-1).tolist() == c.ids
            torch.testing.assert_close(
                torch.tensor(c.log_probs), plain_log_probs(tiny_model, prompt, c.ids), atol=1e-5, rtol=0
            )

    def test_greedy_equals_generate(self, tiny_model: Any) -> None:
        c = run(tiny_model, [PROMPTS[3]], [1], temperature=0.0, stop_ids={0})[0]
        out = tiny_model.generate(
            torch.tensor([PROMPTS[3]]), max_new_tokens=24, do_sample=False, eos_token_id=0, pad_token_id=3
        )
        assert out[0, len(PROMPTS[3]) :].tolist() == c.ids

    def test_sliding_window(self, tmp_path: Path, make_tiny_model: Callable[..., Path]) -> None:
        from transformers.models.mistral import MistralConfig, MistralForCausalLM

        config = MistralConfig(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, sliding_window=6, initializer_range=0.3,
        )  # fmt: skip
        torch.manual_seed(0)
        model = MistralForCausalLM(config).eval()
        for prompt, c in zip(PROMPTS, run(model, PROMPTS, SEEDS), strict=True):
            torch.testing.assert_close(
                torch.tensor(c.log_probs), plain_log_probs(model, prompt, c.ids), atol=1e-5, rtol=0
            )


class TestDistribution:
    """Tokens come as often as the model says."""

    PROBS = (0.4, 0.0, 0.25, 0.2, 0.1, 0.05)

    def frequencies(self, top_p: float, temperature: float = 1.0) -> list[int]:
        n = 20_000
        logits_RV = torch.tensor([self.PROBS]).log().expand(n, -1)
        uniform_R = torch.cat([uniforms(seed, 1) for seed in range(n)])
        ids_R, _ = draw(logits_RV, uniform_R, temperature=temperature, top_p=top_p)
        return torch.bincount(ids_R, minlength=6).tolist()

    def chi_square(self, counts: list[int], probs: list[float]) -> float:
        n = sum(counts)
        assert all(count == 0 for count, p in zip(counts, probs, strict=True) if p == 0)
        return sum((count - n * p) ** 2 / (n * p) for count, p in zip(counts, probs, strict=True) if p > 0)

    def test_all_tokens(self) -> None:
        """Four degrees of freedom: 18.5 is exceeded once in a thousand."""
        assert self.chi_square(self.frequencies(1.0), list(self.PROBS)) < 18.5

    def test_temperature(self) -> None:
        weights = [p**2 for p in self.PROBS]
        assert self.chi_square(self.frequencies(1.0, temperature=0.5), [w / sum(weights) for w in weights]) < 18.5

    def test_top_p_keeps_the_smallest_set_that_reaches_it(self) -> None:
        """0.4 + 0.25 < 0.7 <= 0.4 + 0.25 + 0.2: three tokens are left."""
        assert self.chi_square(self.frequencies(0.7), [0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85, 0, 0]) < 13.8

    def test_inverse_of_the_cumulative_distribution(self) -> None:
        logits_RV = torch.tensor([self.PROBS]).log().expand(6, -1)
        uniform_R = torch.tensor([0.0, 0.39, 0.41, 0.66, 0.94, 0.9999999], dtype=torch.float64)
        ids_R, log_probs_R = draw(logits_RV, uniform_R, temperature=1.0, top_p=1.0)
        assert ids_R.tolist() == [0, 0, 2, 3, 4, 5]
        never_V = torch.tensor([[0.0, 1.0]]).log()
        assert draw(never_V, torch.zeros(1, dtype=torch.float64), temperature=1.0, top_p=1.0)[0].item() == 1
        assert log_probs_R.tolist() == pytest.approx([math.log(self.PROBS[i]) for i in ids_R.tolist()])

    def test_second_token_of_a_model(self, tmp_path: Path, make_tiny_model: Callable[..., Path]) -> None:
        """Pairs of tokens from a tiny vocabulary against the exact joint distribution of the model."""
        from transformers.models.llama import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=5, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=16, initializer_range=0.4, pad_token_id=None, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        model = LlamaForCausalLM(config).eval()
        n = 4000
        drawn = run(model, [[1, 2]] * n, list(range(n)), max_new_tokens=2, stop_ids=(), pad_id=0, batch_size=n)
        counts = torch.bincount(torch.tensor([5 * c.ids[0] + c.ids[1] for c in drawn]), minlength=25)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[1, 2, a] for a in range(5)])).logits.float()
        joint = logits[0, 1].softmax(-1).unsqueeze(1) * logits[:, 2].softmax(-1)
        # 24 degrees of freedom: 51.2 is exceeded once in a thousand.
        assert self.chi_square(counts.tolist(), joint.flatten().tolist()) < 51.2


class TestStops:
    """A completion ends with the id that stopped it, or where the limit cuts it off."""

    def test_stop_id_is_included_and_nothing_follows(self, tiny_model: Any) -> None:
        for c in run(tiny_model, PROMPTS, SEEDS):
            assert c.stopped == (c.ids[-1] in STOPS)
            assert all(i not in STOPS for i in c.ids[:-1])
            assert len(c.ids) == len(c.log_probs) <= 24
            assert c.stopped or len(c.ids) == 24

    def test_stop_at_the_last_allowed_token_counts(self, tiny_model: Any) -> None:
        whole = next(c for c in run(tiny_model, PROMPTS, SEEDS) if c.stopped and len(c.ids) > 1)
        i = [c.ids for c in run(tiny_model, PROMPTS, SEEDS)].index(whole.ids)
        at_limit = run(tiny_model, [PROMPTS[i]], [SEEDS[i]], max_new_tokens=len(whole.ids))[0]
        cut = run(tiny_model, [PROMPTS[i]], [SEEDS[i]], max_new_tokens=len(whole.ids) - 1)[0]
        assert at_limit.stopped
        assert not cut.stopped

    def test_without_stop_ids(self, tiny_model: Any) -> None:
        assert {len(c.ids) for c in run(tiny_model, PROMPTS, SEEDS, stop_ids=())} == {24}

    def test_progress(self, tiny_model: Any) -> None:
        told: list[int] = []
        run(tiny_model, PROMPTS, SEEDS, batch_size=3, on_batch=told.append)
        assert told == [3, 6, 7]

    def test_no_prompts(self, tiny_model: Any) -> None:
        assert run(tiny_model, [], []) == []


class TestState:
    """The model comes back as it was given."""

    def test_training_mode_and_gradients(self, tiny_model: Any) -> None:
        tiny_model.train()
        for layer in tiny_model.model.layers:
            layer.self_attn.attention_dropout = 0.5
        drawn = run(tiny_model, PROMPTS, SEEDS)
        assert tiny_model.training
        assert drawn == run(tiny_model.eval(), PROMPTS, SEEDS)
        assert all(p.grad is None for p in tiny_model.parameters())


class TestMemory:
    """A batch that does not fit is divided; what cannot be divided says what to lower."""

    def narrow(self, monkeypatch: pytest.MonkeyPatch, most_rows: int) -> list[int]:
        """Let batches of more rows run out of memory; returns a list that grows by the rows of each try."""
        tried: list[int] = []
        prefill = sampling_batch.Batch._prefill

        def checked(batch: Any) -> Any:
            tried.append(len(batch._prompts))
            if tried[-1] > most_rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
            return prefill(batch)

        monkeypatch.setattr(sampling_batch.Batch, "_prefill", checked)
        return tried

    def test_half_the_rows_draw_the_same(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = run(tiny_model, PROMPTS, SEEDS)
        tried = self.narrow(monkeypatch, 2)
        assert [c.ids for c in run(tiny_model, PROMPTS, SEEDS)] == [c.ids for c in whole]
        assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]

    def test_not_one_row(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.narrow(monkeypatch, 0)
        with pytest.raises(ModelError, match=r"prompt of 17 tokens and max_new_tokens = 24 .*3\.00 GiB.*Lower max_new"):
            run(tiny_model, PROMPTS, SEEDS)

    def test_another_fault_is_not_taken_for_it(self, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(batch: Any) -> None:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        monkeypatch.setattr(sampling_batch.Batch, "_prefill", broken)
        with pytest.raises(RuntimeError, match="mat1"):
            run(tiny_model, PROMPTS, SEEDS)


class TestRefusals:
    def test_empty_prompt(self, tiny_model: Any) -> None:
        with pytest.raises(DataError, match="prompt 2 of 2 has no tokens"):
            run(tiny_model, [[1], []], [1, 2])

    def test_window(self, tiny_model: Any) -> None:
        run(tiny_model, [[5] * 104], [1])
        with pytest.raises(
            DataError, match=r"has 107 tokens; with max_new_tokens = 24 that is 3 more .* window of 128"
        ):
            run(tiny_model, [[5] * 107], [1])

    def test_layers_that_keep_another_state(self) -> None:
        config = SimpleNamespace(layer_types=["full_attention", "linear_attention"], num_hidden_layers=2)
        with pytest.raises(ModelError, match="linear_attention cannot be sampled from"):
            PreallocatedCache(config, rows=1, prompt_columns=2, capacity=4)
