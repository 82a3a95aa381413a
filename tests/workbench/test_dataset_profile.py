"""A profile counts what is there: columns, lengths, turns, scripts; a sample says that it is one."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workbench.dataset_profile
from workbench import value_counts
from workbench.cli import main
from workbench.column_profile import KEPT, ColumnProfile
from workbench.dataset_profile import main_script, profile
from workbench.dataset_store import add_dataset
from workbench.length_profile import Lengths
from workbench.profile_words import profile_lines
from workbench.value_counts import EXACT, ValueCounts
from workbench.workspace import Workspace


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def added(workspace: Workspace, rows: list[dict[str, Any]], name: str = "d") -> Path:
    path = workspace.root / f"{name}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    add_dataset(workspace, path, name)
    return path


def test_rows_columns_lengths_turns_and_scripts(workspace: Workspace) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "x" * (n + 1), "completion": "да" if n < 30 else "yes", "score": n, "tag": ["a", "b", None][n % 3]}
        for n in range(100)
    ]
    rows[7] |= {"completion": ""}
    del rows[8]["tag"]
    added(workspace, rows)
    told = profile(workspace, "d")
    assert (told["rows"], told["usable"], told["sample_of"]) == (100, 99, None)
    columns = {one["name"]: one for one in told["columns"]}
    assert (columns["tag"]["nulls"], columns["tag"]["missing"], columns["tag"]["distinct"]) == (32, 1, 2)
    assert columns["tag"]["top"] == [["a", 34], ["b", 33]]
    assert columns["score"]["numbers"] == {"least": 0, "largest": 99, "mean": 49.5}
    assert (columns["completion"]["empty"], columns["completion"]["top"][0]) == (1, ["yes", 70])
    lengths = told["characters"]["prompt"]  # 1 to 100 without 8
    assert (lengths["count"], lengths["p50"], lengths["max"], lengths["mean"]) == (99, 51, 100, (5050 - 8) / 99)
    assert lengths["histogram"] == [
        [1, 2, 1],
        [2, 4, 2],
        [4, 8, 4],
        [8, 16, 7],
        [16, 32, 16],
        [32, 64, 32],
        [64, 128, 37],
    ]
    assert told["scripts"] == {"latin": 98, "cyrillic": 1}  # only the first prompt is shorter than its answer
    assert told["turns"] == {"2": 99}
    assert told["rows_with"] == {"user": 99, "assistant": 99}


def test_a_sample_is_called_one_and_a_small_file_is_whole(workspace: Workspace) -> None:
    added(workspace, [{"text": f"text {n}"} for n in range(50)])
    told = profile(workspace, "d", sample=20)
    assert (told["rows"], told["sample_of"]) == (20, 50)
    assert profile(workspace, "d", sample=50)["sample_of"] is None


def test_it_is_worked_out_once_for_the_same_content(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    added(workspace, [{"text": f"text {n}"} for n in range(5)])
    first = profile(workspace, "d")
    assert list((workspace.root.parent / "cache" / "workbench" / "analyses").glob("*.json"))

    def never(*_: object) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr(workbench.dataset_profile, "_Pass", never)
    assert profile(workspace, "d") == first
    with pytest.raises(AssertionError, match="read again"):
        profile(workspace, "d", again=True)
    with pytest.raises(AssertionError, match="read again"):
        profile(workspace, "d", sample=3)


def test_tokens_and_the_share_that_is_cut(workspace: Workspace) -> None:
    from engine.data.chat import ChatTokenizer
    from workbench.model_names import resolve_model

    rows = [{"prompt": "why", "chosen": "well " * n, "rejected": "no"} for n in (1, 5, 40, 90)]
    added(workspace, rows)
    told = profile(workspace, "d", model="sample", max_length=64)["tokens"]
    tokenizer = ChatTokenizer.from_folder(resolve_model(workspace, "sample").path)
    prompt = [{"role": "user", "content": "why"}]
    lengths = [
        len(tokenizer.prompt_ids(prompt)) + len(tokenizer.completion_ids(prompt, ("well " * n))) for n in (1, 5, 40, 90)
    ]
    assert (told["count"], told["max"], told["refused"]) == (4, max(lengths), 0)
    assert told["above_limit"] == sum(length > 64 for length in lengths) / 4
    assert 0 < told["above_limit"] < 1


class TestColumn:
    def test_many_values_are_counted_and_estimated_only_where_there_is_no_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        columns = [ColumnProfile("c", tmp_path / "spill"), ColumnProfile("c")]
        monkeypatch.setattr(value_counts, "PASS_VALUES", 10_000)
        values = ["often" if n % 3 == 0 and n > 15_000 else str(n % 30_000) for n in range(45_000)]
        for value in values:
            for column in columns:
                column.add(value)
        counted, estimated = (column.as_json(45_000) for column in columns)
        assert (counted["distinct"], counted["distinct_is_exact"]) == (len(set(values)), True)
        assert (counted["top"][0], counted["top_uncounted"]) == (["often", 9_999], 0)
        assert (estimated["distinct_is_exact"], estimated["distinct_refusal"]) == (False, "nowhere to count")
        assert abs(estimated["distinct"] / counted["distinct"] - 1) < 3 * 0.022
        assert estimated["top_uncounted"] > 0

    def test_a_disk_that_fills_up_is_said_in_the_cell(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        column = ColumnProfile("c", tmp_path / "spill")
        for n in range(40_000):
            if n == 30_000:
                assert (tmp_path / "spill").exists()
                monkeypatch.setattr(value_counts, "free_bytes", lambda: 0)
            column.add(n)
        told = column.as_json(40_000)
        assert (told["distinct_is_exact"], told["distinct_refusal"]) == (False, "no disk to count")
        assert not (tmp_path / "spill").exists()
        whole = {
            "columns": [told],
            "characters": {},
            "columns_left_out": [],
            "turns": {},
            "rows_with": {},
            "scripts": {},
        }
        assert any("≈" in line and "no disk to count" in line for line, _ in profile_lines({**whole, "usable": 0}, 120))

    def test_up_to_the_limit_they_are_counted(self) -> None:
        column = ColumnProfile("c")
        for n in range(EXACT):
            column.add(n)
        assert (column.as_json(EXACT)["distinct"], column.as_json(EXACT)["distinct_is_exact"]) == (EXACT, True)

    def test_frequent_values_among_many_rare_ones(self) -> None:
        """A count is never too high, and too low by no more than is said (Misra & Gries)."""
        rng = random.Random(1)
        values = ["often"] * 6000 + ["sometimes"] * 3000 + [f"once {n}" for n in range(20 * KEPT)]
        rng.shuffle(values)
        column = ColumnProfile("c")
        for value in values:
            column.add(value)
        told = column.as_json(len(values))
        assert [text for text, _ in told["top"][:2]] == ["often", "sometimes"]
        for (_, count), true in zip(told["top"], (6000, 3000), strict=False):
            assert true - told["top_uncounted"] <= count <= true

    def test_a_value_that_is_frequent_only_late(self) -> None:
        column = ColumnProfile("c")
        for value in [f"early {n}" for n in range(KEPT)] * 3 + ["late"] * 4000:
            column.add(value)
        told = column.as_json(3 * KEPT + 4000)
        assert told["top"][0] == ["late", 4000 - told["top_uncounted"]]

    def test_of_every_type(self) -> None:
        column = ColumnProfile("c")
        for value in (None, 1, 1.5, True, "x", [1, 2], {"a": 1}, float("nan"), 1 << 70, b"\xff", "\ud800"):
            column.add(value)
        told = column.as_json(12)
        assert (told["nulls"], told["missing"]) == (1, 1)
        assert told["numbers"]["least"] == 1
        json.dumps(told)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 40), max_size=300), st.integers(1, 30), st.integers(1, 60))
def test_values_are_counted_as_a_counter_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[int], exact: int, per_pass: int
) -> None:
    for name, value in (("EXACT", exact), ("PASS_VALUES", per_pass), ("_HELD", 7), ("_CHUNK", 11)):
        monkeypatch.setattr(value_counts, name, value)
    (tmp_path / "spill").unlink(missing_ok=True)
    values, true = ValueCounts(tmp_path / "spill"), Counter(keys)
    for key in keys:
        values.add(key)
    wanted = list(true)[::2]
    found = values.counted(wanted)
    assert found is not None
    assert found.distinct == len(true)
    assert found.counts == {key: true[key] for key in wanted}
    assert found.most_of_others == max((true[key] for key in list(true)[1::2]), default=0)


def test_counting_can_be_ended(tmp_path: Path) -> None:
    values = ValueCounts(tmp_path / "spill")
    for key in range(EXACT + 10):
        values.add(key)

    def enough() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        values.counted([], enough)


def test_no_lengths_and_one() -> None:
    assert Lengths().as_json() == {"count": 0}
    one = Lengths()
    one.add(0)
    assert one.as_json(limit=5)["histogram"] == [[0, 1, 1]]
    assert one.as_json(limit=5)["above_limit"] == 0


@pytest.mark.parametrize(
    ("text", "script"),
    [("hello", "latin"), ("привет all", "cyrillic"), ("你好，世界", "cjk"), ("123 !?", "none"), ("नमस्ते", "devanagari")],
)
def test_scripts(text: str, script: str) -> None:
    assert main_script(iter([text])) == script


def test_the_command(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"question {n}", "completion": "\x1b[2Jok", "\x1bcolumn": "v"} for n in range(30)]
    added(workspace, rows)
    assert main(["--workspace", str(workspace.root), "data", "profile", "d"]) == 0
    out, _ = capsys.readouterr()
    assert "d · prompt-completion · 30 rows, 30 usable" in out
    assert "prompt, characters" in out
    assert "\x1b" not in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert main(["--workspace", str(workspace.root), "data", "profile", "d", "--json", "--sample", "10"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["sample_of"], told["columns"][1]["top"]) == (10, 30, [["\x1b[2Jok", 10]])
    assert main(["--workspace", str(workspace.root), "data", "profile", "d", "--max-length", "9"]) == 2
    assert list(profile_lines(told, 60))
