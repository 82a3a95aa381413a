"""Log-probs of the reference are worked out once for all runs that have the same pairs and the same reference."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from engine import reference_cache, reporting
from engine.errors import StopRequested
from engine.model.adapters import REFERENCE, RoleModel
from engine.reference_cache import REFERENCE_CACHE
from engine.reporting import Reporter
from engine.run.blobs import blobs_used_by
from engine.run.config_toml import read_config
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.locks import hold
from engine.run.status import new_status
from engine.worker import train
from tests.engine.run_maker import make_run
from tests.engine.test_training_runs import curve

ROWS, HELD_OUT = 8, 4
WHOLE = {"train__steps": 2, "train__batch_size": 4}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    (tmp_path / "workspace.toml").write_text("schema = 1\n")
    return tmp_path


@pytest.fixture
def make(workspace: Path, tiny_model_folder: Path) -> Callable[..., RunFolder]:
    """A run on all pairs, without a probe: only the cache asks the reference."""

    def made(name: str, method: str = "dpo", where: Path = workspace / "runs", **settings: object) -> RunFolder:
        given: dict[str, Any] = {"probe__prompts": 0, "evaluation__every": 0, **WHOLE, **settings}
        return make_run(where / name, method, tiny_model_folder, train_rows=ROWS, eval_rows=HELD_OUT, **given)

    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The documents of each pass of the reference."""
    documents: list[int] = []
    scores = RoleModel.scores

    def counting(roles: RoleModel, batch: Any, role: str, **options: Any) -> Any:
        if role == REFERENCE:
            documents.append(len(batch.spans))
        return scores(roles, batch, role, **options)

    monkeypatch.setattr(RoleModel, "scores", counting)
    return documents


@pytest.fixture
def answers_asked(asked: list[int]) -> Callable[[RunFolder], int]:
    """Train a run to its end; how many answers its reference was asked about."""

    def trained(folder: RunFolder) -> int:
        asked.clear()
        run(folder)
        return sum(asked)

    return trained


def run(folder: RunFolder, stop: Callable[[], bool] = lambda: False) -> None:
    torch.manual_seed(0)
    train(read_config(folder.config_path), folder, Reporter(folder, new_status(folder, None, phase="preparing")), stop)


def values_in(file: Path) -> torch.Tensor:
    return load(file.read_bytes())["log_probs"]


def cached(folder: RunFolder) -> list[tuple[int, int]]:
    """What was said of each time that the log-probs were looked for: (worked out now, by an earlier run)."""
    return [(e["pairs"], e["shared"]) for e in read_events(folder) if e["kind"] == "reference_cached"]


def test_two_runs_ask_the_reference_once_and_end_alike(
    make: Callable[..., RunFolder], answers_asked: Callable[[RunFolder], int], tmp_path: Path
) -> None:
    first, second, alone = make("a"), make("b"), make("alone", where=tmp_path)
    assert answers_asked(first) == 2 * (ROWS + HELD_OUT)
    assert answers_asked(second) == 0
    assert answers_asked(alone) == 2 * (ROWS + HELD_OUT)
    assert curve(first) == curve(second) == curve(alone)
    assert (cached(first), cached(second)) == ([(ROWS + HELD_OUT, 0)], [(0, ROWS + HELD_OUT)])
    assert blobs_used_by(first) == blobs_used_by(second)


def test_what_cannot_change_the_numbers_shares_them(
    make: Callable[..., RunFolder], answers_asked: Callable[[RunFolder], int]
) -> None:
    run(make("first"))
    assert answers_asked(make("a", dpo__beta=0.5, dpo__loss="ipo", optim__lr=1e-3, adapter__r=2)) == 0
    assert answers_asked(make("b", train__seed=9, train__batch_size=8, train__tokens_per_micro_batch=60)) == 0
    assert answers_asked(make("c", adapter__kind="full")) == 0
    assert answers_asked(make("d", train__precision="bf16")) == 2 * (ROWS + HELD_OUT)


def test_an_adapter_is_known_by_its_weights_and_not_by_its_place(
    make: Callable[..., RunFolder], answers_asked: Callable[[RunFolder], int], tmp_path: Path
) -> None:
    first = make("a")
    run(first)
    adapter = first.checkpoint_path(2)
    assert answers_asked(make("b", model__adapter=str(adapter))) == 2 * (ROWS + HELD_OUT)
    shutil.copytree(adapter, tmp_path / "copy")
    assert answers_asked(make("c", model__adapter=str(tmp_path / "copy"))) == 0
    weights = load_file(tmp_path / "copy" / "adapter_model.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, tmp_path / "copy" / "adapter_model.safetensors")
    assert answers_asked(make("d", model__adapter=str(tmp_path / "copy"))) == 2 * (ROWS + HELD_OUT)


def test_a_longer_run_measures_what_is_new(
    make: Callable[..., RunFolder],
    answers_asked: Callable[[RunFolder], int],
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reference_cache, "PORTION", 2)
    short, longer = make("a", train__steps=1, train__batch_size=3, evaluation__max_rows=1), make("b")
    assert answers_asked(short) == 2 * (3 + 1)
    assert answers_asked(longer) == 2 * (ROWS - 3 + HELD_OUT - 1)
    blobs = {name: file for name, file in blobs_used_by(longer).items() if name.startswith("reference")}
    known = {name: values_in(workspace / "blobs" / file) for name, file in blobs.items()}
    assert {name: len(values) for name, values in known.items()} == {"reference_train": 8, "reference_eval": 4}
    assert not torch.cat(list(known.values())).isnan().any()
    alone = make("c", where=workspace)
    run(alone)
    torch.testing.assert_close(
        values_in(longer.data / REFERENCE_CACHE), values_in(alone.data / REFERENCE_CACHE), rtol=1e-6, atol=1e-5
    )


def test_a_file_that_is_not_whole_is_measured_again(
    make: Callable[..., RunFolder], answers_asked: Callable[[RunFolder], int], workspace: Path
) -> None:
    first = make("a")
    run(first)
    used = blobs_used_by(first)
    shared, other = (workspace / "blobs" / used[f"reference_{side}"] for side in ("train", "eval"))
    content, values = shared.read_bytes(), values_in(shared)
    altered = content[:-1] + bytes([content[-1] ^ 1])
    for number, harmed in enumerate((b"", content[:-4], altered, other.read_bytes())):
        shared.write_bytes(harmed)
        second = make(f"b{number}")
        assert answers_asked(second) == 2 * ROWS
        assert torch.equal(values_in(shared), values)
        assert curve(second) == curve(first)


def test_a_run_goes_on_with_the_values_it_began_with(
    make: Callable[..., RunFolder], answers_asked: Callable[[RunFolder], int], workspace: Path
) -> None:
    folder = make("a")
    run(folder)
    shutil.rmtree(workspace / "blobs")
    assert answers_asked(folder) == 0
    own = folder.data / REFERENCE_CACHE
    content, values = own.read_bytes(), values_in(own)
    own.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert answers_asked(folder) == 2 * (ROWS + HELD_OUT)
    assert torch.equal(values_in(own), values)


def test_the_mismatched_answers_of_kto_are_shared_under_one_seed(
    make: Callable[..., RunFolder], answers_asked: Callable[[RunFolder], int]
) -> None:
    assert answers_asked(make("a", "kto")) == 2 * (ROWS + HELD_OUT)
    assert answers_asked(make("b", "kto", kto__beta=0.5)) == 0
    assert answers_asked(make("c", "kto", train__seed=9)) == 2 * (ROWS + HELD_OUT)


def test_who_waits_for_another_run_hears_a_stop(
    make: Callable[..., RunFolder], workspace: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(make("a"))
    blob = workspace / "blobs" / blobs_used_by(RunFolder(workspace / "runs" / "a"))["reference_train"]
    lock = hold(blob.with_name(f".{blob.name}.lock"))
    assert lock is not None
    waits: list[float] = []
    monkeypatch.setattr(reference_cache.time, "sleep", waits.append)
    asked.clear()
    with pytest.raises(StopRequested):
        run(make("b"), lambda: len(waits) > 1)
    lock.release()
    assert asked == []


def test_a_long_pass_tells_how_far_it_is(
    make: Callable[..., RunFolder], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(reporting, "MEASURING_EVERY_S", 0.0)
    monkeypatch.setattr(reference_cache, "PORTION", 3)

    def tell(reporter: Reporter, **changes: Any) -> None:
        if "pairs_to_measure" in changes:
            told.append((changes["pairs_measured"], changes["pairs_to_measure"]))
        status(reporter, **changes)

    status = Reporter.status
    monkeypatch.setattr(Reporter, "status", tell)
    run(make("a", train__tokens_per_micro_batch=64))
    known = [done for done, _ in told]
    assert known == sorted(known)
    assert (known[0], known[-1], len(set(known)) > 4) == (0, ROWS + HELD_OUT, True)
    assert {total for _, total in told} == {ROWS + HELD_OUT}


def test_a_long_pass_that_is_killed_keeps_what_was_written(
    make: Callable[..., RunFolder], asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_cache, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(reference_cache, "PORTION", 3)
    folder = make("a", train__tokens_per_micro_batch=64)
    with pytest.raises(StopRequested):
        run(folder, stop=lambda: sum(asked) >= 2 * 5)  # in the second portion
    begun = sum(asked)
    asked.clear()
    run(folder)
    assert sum(asked) == 2 * (ROWS + HELD_OUT - 3), "the first portion is known"
    assert begun < 2 * (ROWS + HELD_OUT)
