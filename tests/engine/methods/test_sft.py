"""SFT by closed form and by what must not change it: a known Markov chain, packing, micro-batches, special tokens."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data.chat import ChatTokenizer
from engine.data.sft_examples import SftExample, read_sft
from engine.methods.method import ExampleOrder
from engine.methods.sft import SupervisedFineTuning
from engine.model.adapters import POLICY, RoleModel, build_roles
from engine.optimizer import Optimizer
from engine.run.config import OptimConfig

CPU = torch.device("cpu")
FIRST_STATE = 10
"""Token of the chain's first state; the others follow."""
CHAIN = torch.tensor(
    [[0.1, 0.6, 0.2, 0.1], [0.0, 0.25, 0.5, 0.25], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]],
    dtype=torch.float64,
)
"""Row i: probabilities of the state that follows state i."""


def full(model: Any) -> RoleModel:
    return build_roles(model, kind="full", trained=POLICY, start_adapter=None)


def chain_examples(count: int, length: int, seed: int) -> list[SftExample]:
    """Sequences of the stationary chain, every token but the first trained."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.multinomial(stationary().expand(count, -1), 1, generator=generator)
    walks = [states]
    for _ in range(length - 1):
        walks.append(torch.multinomial(CHAIN[walks[-1].squeeze(1)], 1, generator=generator))
    ids = (torch.cat(walks, dim=1) + FIRST_STATE).tolist()
    return [SftExample(str(i), tuple(row), (True,) * length) for i, row in enumerate(ids)]


def stationary() -> torch.Tensor:
    """pi with pi P = pi."""
    return torch.linalg.matrix_power(CHAIN, 200)[0]


def true_loss(examples: Sequence[SftExample]) -> float:
    """Mean of -log P over the transitions of some sequences, nats a token."""
    pairs = [(a - FIRST_STATE, b - FIRST_STATE) for e in examples for a, b in zip(e.ids, e.ids[1:], strict=False)]
    return -sum(math.log(CHAIN[a, b].item()) for a, b in pairs) / len(pairs)


@pytest.mark.slow
def test_reaches_the_entropy_of_a_known_markov_chain(tiny_model: Any) -> None:
    """Nobody can do better than the chain's entropy rate, sum_i pi_i H(P_i); training comes within 1 % of it.

    Held-out loss is compared with the chain's own loss on the same tokens, which takes the noise of the draw out.
    """
    entropy = -(stationary().unsqueeze(1) * CHAIN * CHAIN.clamp(min=1e-300).log()).sum().item()
    train, held_out = chain_examples(9600, 24, seed=1), chain_examples(200, 24, seed=2)
    roles = full(tiny_model)
    order = ExampleOrder(len(train), batch_size=24, epochs=1, steps=0, seed=0)
    method = SupervisedFineTuning(roles, train, held_out, order, tokens_per_micro_batch=4096, device=CPU)
    optimizer = Optimizer(roles.trainable, OptimConfig(lr=5e-3, schedule="linear"), method.total_steps)
    before = method.evaluate(lambda: None)["eval_loss"]
    for step in range(method.total_steps):
        (update,) = method.updates(step)
        (run,) = update.micro_batches
        (run().losses["tokens"] / update.counts["tokens"]).backward()
        optimizer.step(step, [norm.item() for norm in optimizer.gradient_norms()])
    after = method.evaluate(lambda: None)["eval_loss"]
    best = true_loss(held_out)
    assert best == pytest.approx(entropy, rel=0.03), "the draw is not unusual"
    assert before > 2 * entropy
    assert 0.999 < after / best < 1.01


class TestInvariances:
    """Loss and gradients are those of the examples of a step, however they are laid out."""

    @pytest.fixture
    def examples(self) -> list[SftExample]:
        generator = torch.Generator().manual_seed(5)

        def draw(size: int, high: int) -> list[int]:
            drawn: list[int] = torch.randint(high, (size,), generator=generator).tolist()
            return drawn

        lengths = [3, 17, 8, 30, 2, 11]
        return [
            SftExample(str(i), tuple(draw(n, 300)), (False, True, *map(bool, draw(n - 2, 2))))
            for i, n in enumerate(lengths)
        ]

    def gradients(
        self, folder: Path, examples: Sequence[SftExample], budget: int, **objective: Any
    ) -> tuple[float, dict[str, torch.Tensor]]:
        from transformers.models.llama import LlamaForCausalLM

        roles = full(LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float64).eval())
        order = ExampleOrder(len(examples), batch_size=len(examples), epochs=1, steps=1, seed=0)
        method = SupervisedFineTuning(
            roles, examples, [], order, tokens_per_micro_batch=budget, device=CPU, **objective
        )
        (update,) = method.updates(0)
        total = 0.0
        for run in update.micro_batches:
            loss = run().losses["tokens"] / update.counts["tokens"]
            loss.backward()
            total += loss.item()
        return total, {name: p.grad for name, p in roles.model.named_parameters() if p.grad is not None}

    @pytest.mark.parametrize("objective", [{}, {"label_smoothing": 0.1}, {"loss": "dft"}], ids=["nll", "smooth", "dft"])
    def test_micro_batches_and_the_order_of_packing(
        self, tiny_model_folder: Path, examples: list[SftExample], objective: dict[str, Any]
    ) -> None:
        whole, expected = self.gradients(tiny_model_folder, examples, 4096, **objective)
        for order, budget in (([5, 0, 3, 1, 4, 2], 4096), (range(6), 1), ([4, 3, 2, 1, 0, 5], 25), (range(6), 40)):
            loss, found = self.gradients(tiny_model_folder, [examples[i] for i in order], budget, **objective)
            # Log-sum-exp is taken in fp32 whatever the weights are held in.
            assert loss == pytest.approx(whole, rel=1e-6)
            assert all(torch.allclose(found[name], grad, rtol=1e-4, atol=1e-7) for name, grad in expected.items())


def test_padding_that_is_the_end_of_turn_changes_nothing(
    tiny_model_folder: Path, tmp_path: Path, make_tiny_tokenizer: Callable[..., None]
) -> None:
    """Masks come from lengths, never from ids: the end of each answer is trained though it is the padding token."""
    rows = tmp_path / "rows.jsonl"
    talk = [{"role": "user", "content": "Name three birds."}, {"role": "assistant", "content": "A robin."}]
    rows.write_text(json.dumps({"messages": talk * 2}) + "\n" + json.dumps({"text": "The cat sat."}) + "\n")
    plain = ChatTokenizer.from_folder(tiny_model_folder)
    shutil.copytree(tiny_model_folder, tmp_path / "same")
    settings = json.loads((tmp_path / "same" / "tokenizer_config.json").read_text())
    (tmp_path / "same" / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "<|im_end|>"}))
    same = ChatTokenizer.from_folder(tmp_path / "same")
    assert same.pad_id == same.end_of_turn_id != plain.pad_id
    examples, _ = read_sft(rows, same, 128)
    assert examples == read_sft(rows, plain, 128)[0]
    ends = [on for e in examples for i, on in zip(e.ids, e.trained, strict=True) if i == same.end_of_turn_id]
    assert ends == [False, True, False, True, True]
