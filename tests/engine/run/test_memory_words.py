"""Out of memory: by how much and what to lower, from the messages that torch gives."""

from __future__ import annotations

import pytest

from engine.run.config import DataConfig, RunConfig, RunSection, TrainConfig
from engine.run.memory_words import free_memory_bytes, is_out_of_memory, out_of_memory

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.68 GiB of which 512.00 MiB is "
    "free. Including non-PyTorch memory, this process has 22.00 GiB memory in use."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:118] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "1073741824 bytes."
)


def config(budget: int, longest: int = 1024) -> RunConfig:
    return RunConfig(
        RunSection(id="r1"), train=TrainConfig(tokens_per_micro_batch=budget), data=DataConfig(max_length=longest)
    )


def test_on_a_gpu() -> None:
    words = out_of_memory(CUDA, config(4096), 99)
    assert words == (
        "out of memory: 2.50 GiB more were asked for and 0.50 GiB were free, 2.00 GiB too few. Lower "
        "train.tokens_per_micro_batch (now 4096), which does not change the result: workbench runs resume r1 --set "
        "train.tokens_per_micro_batch=2048"
    )


def test_on_a_processor_the_system_says_what_was_free() -> None:
    words = out_of_memory(CPU, config(1500), 2**28)
    assert "1.00 GiB more were asked for and 0.25 GiB were free, 0.75 GiB too few" in words
    assert words.endswith("--set train.tokens_per_micro_batch=1024")  # below max_length it would change nothing


def test_where_one_example_is_too_long_its_length_is_to_be_cut() -> None:
    words = out_of_memory(CPU, config(1024), None)
    assert "1.00 GiB more were asked for. A micro-batch holds one example already" in words
    assert words.endswith("workbench runs clone r1 --set data.max_length=512")


def test_a_message_without_numbers_is_told_as_it_is() -> None:
    assert out_of_memory("", None, None).startswith("out of memory. Lower")
    assert out_of_memory("not enough memory: x\ny", None, 5).startswith("out of memory: not enough memory: x. Lower")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(CUDA), RuntimeError(CPU)])
def test_is_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_not() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_this_machine_has_some_left() -> None:
    free = free_memory_bytes()
    assert free is None or free > 0
