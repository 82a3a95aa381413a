"""The head that is not trained: log-probs and their gradient against plain autograd, in slices and whole."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.data.packing import Document, pack
from engine.model import frozen_head
from engine.model.frozen_head import FrozenHeadLogProbs, is_frozen
from engine.model.log_probs import hidden_states, token_scores

ROWS, HIDDEN, VOCABULARY = 7, 16, 50


def head_and_rows(rows: int = ROWS, *, bias: bool = False) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    head = nn.Linear(HIDDEN, VOCABULARY, bias=bias).requires_grad_(False)
    head.weight.copy_(torch.randn(VOCABULARY, HIDDEN, generator=generator))
    targets = torch.randint(0, VOCABULARY, (rows,), generator=generator)
    return head, torch.randn(rows, HIDDEN, generator=generator).requires_grad_(), targets


@pytest.mark.parametrize("slice_rows", [1, 3, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_autograd(monkeypatch: pytest.MonkeyPatch, slice_rows: int, temperature: float) -> None:
    monkeypatch.setitem(frozen_head.SLICE_BYTES, "cpu", 4 * VOCABULARY * slice_rows)
    head, rows, targets = head_and_rows(bias=True)
    upstream = torch.linspace(-1, 2, ROWS)
    log_prob, entropy, hit = FrozenHeadLogProbs.apply(rows, targets, head, temperature, True, True)
    (log_prob * upstream).sum().backward()
    expected_rows = rows.detach().clone().requires_grad_()
    expected = torch.log_softmax(head(expected_rows) / temperature, -1)
    chosen = expected[torch.arange(ROWS), targets]
    (chosen * upstream).sum().backward()
    assert torch.allclose(log_prob, chosen, atol=1e-5)
    assert torch.allclose(rows.grad, expected_rows.grad, rtol=1e-5, atol=1e-5)
    assert torch.allclose(entropy, -(expected.exp() * expected).sum(-1), atol=1e-5)
    assert hit.tolist() == (expected.argmax(-1) == targets).float().tolist()


def test_slices_are_of_one_size_as_near_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(frozen_head.SLICE_BYTES, "cpu", 4 * VOCABULARY * 3)
    head, rows, targets = head_and_rows()
    sizes: list[int] = []
    score = frozen_head._score

    def noted(head: nn.Linear, rows_nH: torch.Tensor, *others: Any) -> tuple[torch.Tensor, ...]:
        sizes.append(len(rows_nH))
        return score(head, rows_nH, *others)

    monkeypatch.setattr(frozen_head, "_score", noted)
    for count, expected in ((7, [2, 2, 3]), (4, [2, 2]), (3, [3]), (5, [2, 3]), (0, [])):
        sizes.clear()
        FrozenHeadLogProbs.apply(rows[:count], targets[:count], head, 1.0, False, True)
        assert sizes == expected


def test_a_target_that_is_all_but_certain_keeps_its_gradient_in_bf16() -> None:
    """1 - p of about 0.001 is taken in fp32: in bf16 it would be a multiple of 1/256."""
    head, rows, targets = head_and_rows()
    head, rows = head.bfloat16(), (head.weight[targets] * 0.5).bfloat16().detach().requires_grad_()
    log_prob, _, _ = FrozenHeadLogProbs.apply(rows, targets, head, 1.0, False, True)
    log_prob.sum().backward()
    exact = rows.detach().float().requires_grad_()
    exact_log_prob = torch.log_softmax(exact @ head.weight.float().t(), -1)[torch.arange(ROWS), targets]
    exact_log_prob.sum().backward()
    certain = exact_log_prob > -0.02
    assert certain.any()
    assert torch.allclose(rows.grad[certain].float(), exact.grad[certain], rtol=0.1, atol=2e-4)


def test_no_rows_and_no_gradient() -> None:
    head, rows, targets = head_and_rows(0)
    log_prob, _, _ = FrozenHeadLogProbs.apply(rows, targets, head, 1.0, False, True)
    log_prob.sum().backward()
    assert log_prob.shape == (0,)
    assert rows.grad.shape == (0, HIDDEN)
    head, rows, targets = head_and_rows()
    with torch.no_grad():
        without, _, _ = FrozenHeadLogProbs.apply(rows, targets, head, 1.0, False, False)
    assert torch.equal(without, FrozenHeadLogProbs.apply(rows, targets, head, 1.0, False, True)[0])


def test_a_head_that_trains_is_left_to_autograd() -> None:
    head, _, _ = head_and_rows()
    assert is_frozen(head)
    assert not is_frozen(head.requires_grad_(True))


def test_without_a_gradient_a_head_that_trains_scores_bit_equal_to_its_frozen_copy(tiny_model: Any) -> None:
    """Else the sampled KL of full fine-tuning would not begin at exactly 0."""
    frozen = copy.deepcopy(tiny_model).requires_grad_(False)
    batch = pack([Document([5, 6, 7, 8, 9], [True] * 5)])
    with torch.no_grad():
        values = [token_scores(m, hidden_states(m, batch), batch).log_probs_N for m in (tiny_model, frozen)]
    assert torch.equal(*values)


ONE_SLICE_AFTER_ANOTHER = """
import torch
from torch import nn
from engine.model.frozen_head import FrozenHeadLogProbs

def peak_bytes():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

torch.set_num_threads(1)
head = nn.Linear(8, 49152, bias=False).requires_grad_(False)
rows = torch.randn(1024, 8)
before = peak_bytes()
for slope in (False, True):
    FrozenHeadLogProbs.apply(rows.requires_grad_(slope), torch.arange(1024), head, 1.0, True, slope)
print(peak_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no peak")
def test_slices_take_each_others_memory() -> None:
    """Logits of 200 MB in 7 slices: what a slice leaves behind must not keep the next from its place in the heap."""
    root = str(Path(__file__).resolve().parents[3])
    ended = subprocess.run(
        [sys.executable, "-c", ONE_SLICE_AFTER_ANOTHER],
        # As where a process has freed a large block before: everything comes from the heap.
        env={
            **os.environ,
            "PYTHONPATH": root,
            "MALLOC_MMAP_THRESHOLD_": "1073741824",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ended.stdout) < 500_000_000  # 380 MB; 750 MB where they do not
