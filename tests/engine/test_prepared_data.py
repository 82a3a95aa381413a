"""A run's examples are tokenised once, shared by the runs of a workspace, and mended where they are torn."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data import tokenised
from engine.data.array_files import GrowingArray
from engine.data.chat import ChatTokenizer
from engine.data.examples import read_preferences
from engine.data.sft_examples import read_sft
from engine.errors import DataError, RunFolderError, StopRequested
from engine.prepared_data import PreparedData
from engine.run.blobs import blobs_folder, blobs_used_by, sha256_of, share_file
from engine.run.config_toml import read_config
from engine.run.folder import RunFolder
from engine.run.status import read_status
from tests.engine.run_maker import make_run, write_rows


@pytest.fixture
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    (tmp_path / "workspace.toml").write_text("schema = 1\n")
    return tmp_path


@pytest.fixture
def make(workspace: Path, tiny_model_folder: Path) -> Callable[..., RunFolder]:
    def made(name: str, method: str = "dpo", **settings: object) -> RunFolder:
        return make_run(workspace / "runs" / name, method, tiny_model_folder, **settings)

    return made


@pytest.fixture
def tokenisings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows that were tokenised, in order, by name."""
    rows: list[str] = []
    for name in ("preference_row", "sft_row"):
        original = getattr(tokenised, name)

        def counted(row: object, name: str, _original: Callable[..., object] = original, **given: object) -> object:
            rows.append(name)
            return _original(row, name, **given)

        counted.__name__ = name
        monkeypatch.setattr(tokenised, name, counted)
    return rows


def data_of(folder: RunFolder, tokenizer: ChatTokenizer, **how: object) -> PreparedData:
    return PreparedData(read_config(folder.config_path), folder, tokenizer, **how)


def test_gives_what_the_readers_give(make: Callable[..., RunFolder], tokenizer: ChatTokenizer) -> None:
    folder = make("a")
    prepared = data_of(folder, tokenizer)
    wanted, counts = read_preferences(folder.data / "train.jsonl", tokenizer, 128)
    assert list(prepared.train.examples) == wanted
    assert prepared.train.counts == counts
    sft = make("b", "sft", sft__train_on="all")
    assert list(data_of(sft, tokenizer).train.examples) == read_sft(sft.data / "train.jsonl", tokenizer, 128, "all")[0]


def test_what_reading_lost_and_changed_is_kept_with_the_store(
    make: Callable[..., RunFolder], tokenizer: ChatTokenizer
) -> None:
    folder = make("a", "sft")
    talk = [{"role": "user", "content": "Say sea"}, {"role": "assistant", "content": "The sea. " * 99}]
    write_rows(folder.data / "train.jsonl", [{"messages": talk}, {"messages": talk[:1]}, {"text": "The sea."}])
    _, counts = read_sft(folder.data / "train.jsonl", tokenizer, 128)
    assert (counts.truncated, counts.dropped.total(), counts.treatments.total()) == (1, 1, 1)
    for _ in range(2):
        assert data_of(folder, tokenizer).train.counts == counts


def test_two_runs_share_a_store_and_note_it(
    make: Callable[..., RunFolder], tokenizer: ChatTokenizer, tokenisings: list[str], workspace: Path
) -> None:
    one, two = make("a"), make("b")
    data_of(one, tokenizer).prepare()
    assert len(tokenisings) == 24 + 8
    data_of(two, tokenizer).prepare()
    assert len(tokenisings) == 24 + 8
    assert blobs_used_by(one) == blobs_used_by(two)
    assert set(blobs_used_by(one)) == {"train", "eval", "eval_prompts"}
    assert {entry.name for entry in (workspace / "blobs").iterdir() if entry.is_dir()} == {*blobs_used_by(one).values()}


@pytest.mark.parametrize(
    "change", [{"data__max_length": 64}, {"sft__train_on": "all"}, {"other_tokenizer": True}, {"other_rows": True}]
)
def test_what_decides_the_ids_decides_the_store(
    make: Callable[..., RunFolder],
    tokenizer: ChatTokenizer,
    make_tiny_tokenizer: Callable[..., None],
    tmp_path: Path,
    change: dict[str, object],
) -> None:
    first = make("a", "sft")
    settings = {key: value for key, value in change.items() if "__" in key}
    second = make("b", "sft", **settings)
    other = tokenizer
    if "other_tokenizer" in change:
        template = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
        make_tiny_tokenizer(tmp_path / "other", chat_template=template)
        other = ChatTokenizer.from_folder(tmp_path / "other")
    if "other_rows" in change:
        lines = (second.data / "train.jsonl").read_text().splitlines()[1:]
        write_rows(second.data / "train.jsonl", [json.loads(line) for line in lines])
    _ = data_of(first, tokenizer).train, data_of(second, other).train
    assert blobs_used_by(first)["train"] != blobs_used_by(second)["train"]


def test_a_run_outside_a_workspace_keeps_its_own(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "alone", "dpo", tiny_model_folder)
    assert blobs_folder(folder) == folder.data / "blobs"


@pytest.mark.parametrize("harm", ["cut", "altered", "no manifest", "a file"])
def test_a_torn_store_is_made_again(
    make: Callable[..., RunFolder], tokenizer: ChatTokenizer, tokenisings: list[str], workspace: Path, harm: str
) -> None:
    folder = make("a")
    wanted = list(data_of(folder, tokenizer).train.examples)
    store = workspace / "blobs" / blobs_used_by(folder)["train"]
    file = store / ("MANIFEST.json" if harm == "no manifest" else "chosen.values.npy")
    content = file.read_bytes()
    file.unlink()
    if harm in ("cut", "altered"):
        file.write_bytes(content[:-4] if harm == "cut" else content[:-4] + b"\7\0\0\0")
    assert list(data_of(folder, tokenizer).train.examples) == wanted
    assert len(tokenisings) == 2 * 24


def test_a_stop_between_rows_leaves_nothing_behind(
    make: Callable[..., RunFolder], tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, workspace: Path
) -> None:
    monkeypatch.setattr("engine.prepared_data.TELL_EVERY_S", 0.0)
    told: list[tuple[int, int]] = []

    def check() -> None:
        if told:
            raise StopRequested("stop requested")

    prepared = data_of(make("a"), tokenizer, tell=lambda done, total: told.append((done, total)), check=check)
    with pytest.raises(StopRequested):
        _ = prepared.train
    assert told == [(1, 32)]
    assert not [entry for entry in (workspace / "blobs").iterdir() if entry.is_dir()]


def test_a_full_disk_is_named_and_leaves_nothing_behind(
    make: Callable[..., RunFolder], tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, workspace: Path
) -> None:
    def full(self: GrowingArray) -> dict[str, object]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(GrowingArray, "close", full)
    with pytest.raises(RunFolderError, match="keeping tokenised examples: no space left .* free some space"):
        _ = data_of(make("a"), tokenizer).train
    assert not [entry for entry in (workspace / "blobs").iterdir() if entry.is_dir()]


def test_who_wants_what_another_makes_waits_for_it(
    make: Callable[..., RunFolder], tokenizer: ChatTokenizer, tokenisings: list[str]
) -> None:
    folders = [make(f"r{number}") for number in range(3)]
    threads = [threading.Thread(target=lambda f=folder: data_of(f, tokenizer).prepare()) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokenisings) == 24 + 8


def test_a_process_without_torch_prepares_what_the_worker_needs(
    make: Callable[..., RunFolder], tokenizer: ChatTokenizer, tokenisings: list[str], run_isolated: Callable[[str], str]
) -> None:
    folder = make("a")
    code = f"""
import sys
from engine import train
assert train.main([{str(folder.path)!r}, "--prepare"]) == 0
print([name for name in ("torch", "transformers", "peft") if name in sys.modules])
"""
    assert run_isolated(code) == "[]"
    status = read_status(folder)
    assert status is not None
    assert status.phase == "preparing"
    assert len(data_of(folder, tokenizer).train.examples) == 24
    data_of(folder, tokenizer).prepare()
    assert tokenisings == []


class TestFrozenFiles:
    def test_a_change_after_freezing_is_refused(self, make: Callable[..., RunFolder], tokenizer: ChatTokenizer) -> None:
        folder = make("a")
        config = read_config(folder.config_path)
        file = folder.data / "train.jsonl"
        frozen = replace(config, data=replace(config.data, train_sha256=sha256_of(file)))
        _ = PreparedData(frozen, folder, tokenizer).train
        file.write_bytes(file.read_bytes() + b"\n")
        with pytest.raises(DataError, match=r"train\.jsonl: its content has changed since it was frozen .*runs clone"):
            _ = PreparedData(frozen, folder, tokenizer).train

    def test_the_same_content_is_one_file(self, tmp_path: Path) -> None:
        blobs = tmp_path / "blobs"
        blobs.mkdir()
        files = [tmp_path / name for name in ("one", "two")]
        for file in files:
            file.write_bytes(b"content\n")
            assert share_file(file, sha256_of(file), blobs)
        blob = blobs / sha256_of(files[0])
        assert {file.stat().st_ino for file in (*files, blob)} == {blob.stat().st_ino}

    def test_a_blob_that_is_not_what_it_is_called_is_replaced(self, tmp_path: Path) -> None:
        blobs, file = tmp_path / "blobs", tmp_path / "one"
        blobs.mkdir()
        file.write_bytes(b"content\n")
        blob = blobs / sha256_of(file)
        blob.write_bytes(b"conte")
        assert share_file(file, blob.name, blobs)
        assert blob.read_bytes() == file.read_bytes() == b"content\n"

    def test_without_hard_links_a_file_stays_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr("os.link", refuse)
        (tmp_path / "blobs").mkdir()
        (tmp_path / "one").write_bytes(b"content\n")
        assert not share_file(tmp_path / "one", sha256_of(tmp_path / "one"), tmp_path / "blobs")
        assert [entry.name for entry in sorted(tmp_path.iterdir())] == ["blobs", "one"]
