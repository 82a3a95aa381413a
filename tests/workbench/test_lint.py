"""Lint finds every planted fault in its row, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from workbench.cli import main
from workbench.dataset_store import add_dataset, open_dataset
from workbench.errors import SourceChanged, UsageError
from workbench.lint import lint
from workbench.lint_dropping import drop_found
from workbench.lint_findings import KINDS, LintReport, RowBits
from workbench.lint_texts import addresses_in, broken_order, harmful_characters, secrets_in
from workbench.made_dataset import make_like, remake
from workbench.pair_sets import CandidatePair, create_pairs
from workbench.preferences import freeze
from workbench.workspace import Workspace

ROWS = 60
Row = dict[str, Any]
TOKEN = "ghp_" + "a1B2" * 10


def words(rng: random.Random, count: int = 30) -> str:
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 9))) for _ in range(count))


def pairs(seed: int = 1, rows: int = ROWS) -> list[Row]:
    """Clean preferences: every text is another one, and lengths tell nothing."""
    rng = random.Random(seed)
    made = []
    for number in range(rows):
        lengths = (20, 30) if number % 2 else (30, 20)
        made.append({"prompt": words(rng), "chosen": words(rng, lengths[0]), "rejected": words(rng, lengths[1])})
    return made


def chats(seed: int = 2, rows: int = 20) -> list[Row]:
    rng = random.Random(seed)
    roles = ("system", "user", "assistant", "user", "assistant")
    return [{"messages": [{"role": role, "content": words(rng, 12)} for role in roles]} for _ in range(rows)]


def added(workspace: Workspace, rows: list[Row], name: str = "d", extra: bytes = b"") -> None:
    path = workspace.root / f"{name}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows) + extra)
    add_dataset(workspace, path, name)


def found(report: LintReport) -> dict[str, list[int]]:
    """Kind → the lines that were found."""
    return {one.kind: [row.number for row in one.rows] for one in report.findings}


def nearly(text: str) -> str:
    """The text with one of its thirty words replaced."""
    parts = text.split()
    return " ".join([*parts[:10], "another", *parts[11:]])


def swapped(row: Row) -> Row:
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


PLANTED: dict[str, Callable[[list[Row], Row], Row]] = {
    # kind: (all rows, the row that stands there) -> the row that is planted in its place
    "equal-answers": lambda rows, row: {**row, "rejected": f"  {row['chosen'].upper()}\n"},
    "empty-turns": lambda rows, row: {**row, "chosen": " "},
    "role-order": lambda rows, row: {**row, "prompt": [{"role": "user", "content": row["prompt"]}] * 2,
                                     "chosen": [{"role": "assistant", "content": "b"}],
                                     "rejected": [{"role": "assistant", "content": "c"}]},
    "not-used": lambda rows, row: {**row, "margin": "much"},
    "duplicates": lambda rows, row: {key: f" {text.upper()} " if isinstance(text, str) else text
                                     for key, text in rows[3].items()},
    "near-duplicates": lambda rows, row: {key: nearly(text) if isinstance(text, str) else text
                                          for key, text in rows[3].items()},
    "control-characters": lambda rows, row: {**row, "chosen": row["chosen"] + " \u202e"},
    "secrets": lambda rows, row: {**row, "rejected": row["rejected"] + f" {TOKEN}"},
    "emails": lambda rows, row: {**row, "prompt": row["prompt"] + " alice@corp.io"},
}  # fmt: skip


class TestPlantedFaults:
    def test_clean_rows_have_none(self, workspace: Workspace) -> None:
        added(workspace, pairs())
        report = lint(workspace, "d")
        assert (found(report), report.rows, report.usable) == ({}, ROWS, ROWS)
        bias = report.measures["length_bias"]
        assert (bias["longer_preferred"], bias["prompts"]) == (0.5, ROWS)

    @pytest.mark.parametrize("kind", sorted(PLANTED))
    def test_each_is_found_in_its_row_and_nothing_else(self, workspace: Workspace, kind: str) -> None:
        rows = [{**row, "margin": 1.0} for row in pairs()]
        for place in (20, 41):
            rows[place] = PLANTED[kind](rows, {**rows[place], "prompt": rows[place]["prompt"] + f" {place}"})
        if kind in ("duplicates", "near-duplicates"):
            rows[41] = rows[0]
            rows[0] = pairs(seed=9)[0]
        added(workspace, rows)
        lines = [21] if kind in ("duplicates", "near-duplicates") else [21, 42]
        assert found(lint(workspace, "d")) == {kind: lines}

    def test_a_pair_that_is_judged_both_ways(self, workspace: Workspace) -> None:
        rows = pairs()
        rows[30] = swapped(rows[10])
        added(workspace, rows)
        report = lint(workspace, "d")
        assert found(report) == {"contradictions": [11, 31]}
        assert report.findings[0].rows[0].detail == "line 31 prefers the other one"

    def test_dialogues_that_differ_too_early_and_markers_inside_answers(self, workspace: Workspace) -> None:
        def talk(question: str, answer: str) -> str:
            return f"\n\nHuman: {question}\n\nAssistant: {answer}"

        rows = [{"chosen": talk(r["prompt"], r["chosen"]), "rejected": talk(r["prompt"], r["rejected"])}
                for r in pairs()]  # fmt: skip
        rows[7]["rejected"] = rows[7]["rejected"].replace("Human: ", "Human: no ")
        rows[9]["chosen"] += " Human: and now I ask"
        added(workspace, rows)
        assert found(lint(workspace, "d")) == {"prompt-differs": [8], "speaker-marker": [10]}

    def test_lines_that_cannot_be_read_shift_no_other(self, workspace: Workspace) -> None:
        rows = pairs()
        rows.append(rows[5])
        path = workspace.root / "d.jsonl"
        lines = [orjson.dumps(row) for row in rows]
        path.write_bytes(b"\n".join([*lines[:2], b"{broken", b"", *lines[2:]]) + b"\n")
        add_dataset(workspace, path, "d")
        report = lint(workspace, "d")
        assert found(report) == {"unreadable": [3], "duplicates": [ROWS + 3]}
        duplicate = report.findings[1].rows[0]
        assert (duplicate.ordinal, duplicate.detail) == (ROWS, "as line 8")

    def test_turns(self, workspace: Workspace) -> None:
        rows = chats()
        rows[4]["messages"] = rows[4]["messages"][:-1]
        rows[6]["messages"].insert(2, {"role": "user", "content": "again"})
        rows[8]["messages"][3] = {"role": "wizard", "content": "x"}
        added(workspace, rows)
        report = lint(workspace, "d")
        assert found(report) == {"role-order": [5, 7, 9]}
        assert report.findings[0].details == {
            "it ends with no assistant turn": 1, "two user turns in a row": 1, "unknown role": 1,
        }  # fmt: skip

    @pytest.mark.parametrize(("longer", "biased"), [(36, True), (34, False)])
    def test_length_that_tells(self, workspace: Workspace, longer: int, biased: bool) -> None:
        """Wilson's interval of 36 of 60 is 0.474 to 0.714; with every pair twice under one prompt it is the same."""
        rows = [row if len(row["chosen"]) > len(row["rejected"]) else swapped(row) for row in pairs(rows=60)]
        rows = [row if number < (longer + 6 if biased else longer) else swapped(row) for number, row in enumerate(rows)]
        doubled = [{**row, "chosen": row["chosen"] + " x", "rejected": row["rejected"] + " x"} for row in rows]
        added(workspace, [*rows, *doubled])
        report = lint(workspace, "d", only=("length-bias",))
        assert bool(report.finding("length-bias")) is biased
        bias = report.measures["length_bias"]
        assert (bias["prompts"], bias["pairs"]) == (60, 120)
        if not biased:
            assert [round(edge, 3) for edge in bias["interval"]] == [0.441, 0.684]  # 34 of 60, by Wilson's formula


class TestAgainst:
    def test_rows_and_prompts_that_stand_elsewhere(self, workspace: Workspace) -> None:
        rows, other = pairs(), pairs(seed=7)
        rows[2] = other[5]
        rows[3] = {**rows[3], "prompt": other[6]["prompt"].upper()}
        rows[4] = {**rows[4], "prompt": nearly(other[8]["prompt"])}
        added(workspace, rows)
        added(workspace, other, "held-out")
        report = lint(workspace, "d", against=["held-out"])
        assert found(report) == {"leaked-rows": [3], "leaked-prompts": [4], "near-leaked-prompts": [5]}
        assert "in held-out, too" in report.findings[0].title
        assert found(lint(workspace, "d")) == {}
        added(workspace, rows, "twin")  # the very same file under another name leaks every row
        assert lint(workspace, "d", against=["twin"]).findings[0].count == ROWS
        with pytest.raises(UsageError, match="that is the dataset itself"):
            lint(workspace, "d", against=["d"])

    def test_the_sides_of_a_preference_set_are_compared_without_being_asked(self, workspace: Workspace) -> None:
        rows = [CandidatePair(row["prompt"], row["chosen"], row["rejected"]) for row in pairs()]
        made = create_pairs(workspace, "p", rows, {})
        with made.journal("alice") as journal:
            journal.append_many([journal.prepare(one.id, "a", origin="screen") for one in made.pairs()])
        freeze(workspace, "p", "v1")
        report = lint(workspace, "v1", only=("leaked-rows", "leaked-prompts", "near-leaked-prompts", "duplicates"))
        assert report.name == "v1 (train)"
        assert found(report) == {}
        assert "leaked-rows" not in report.not_looked_for
        held_out = lint(workspace, "v1", side="eval", against=["v1"], only=("leaked-rows",))
        assert held_out.rows + report.rows == ROWS
        assert list(held_out.parameters["against"]) == ["v1 (train)"]
        assert found(held_out) == {}


class TestTokens:
    def test_what_truncation_loses(self, workspace: Workspace) -> None:
        rows: list[Row] = [{"prompt": f"number {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(4)]
        same = "the wheel turns " * 60
        rows[1] |= {"chosen": same + "well", "rejected": same + "badly"}
        rows[2] |= {"prompt": "the brake " * 120}
        rows[3] |= {"chosen": same}
        added(workspace, rows)
        only = ("lost-difference", "no-room", "cut", "refused")
        report = lint(workspace, "d", model="sample", max_length=64, only=only)
        assert found(report) == {"lost-difference": [2], "no-room": [3], "cut": [4]}
        assert "64 tokens" in report.findings[0].title
        assert found(lint(workspace, "d", model="sample", max_length=2048, only=only)) == {}


class TestDropping:
    def test_a_new_dataset_without_the_rows_and_the_same_again(self, workspace: Workspace) -> None:
        rows = pairs()
        rows += [rows[1], {**rows[2], "chosen": ""}]
        added(workspace, rows)
        before = (workspace.root / "d.jsonl").read_bytes()
        made = drop_found(workspace, lint(workspace, "d"), ("duplicates",), "clean")
        assert (made.info.rows, made.info.rejected) == (ROWS, {"empty answer": 1})
        assert found(lint(workspace, "clean")) == {"empty-turns": [ROWS + 1]}
        assert (workspace.root / "d.jsonl").read_bytes() == before
        assert made.info.recognition == open_dataset(workspace, "d").info.recognition
        assert not remake(workspace, "clean").restored
        assert make_like(workspace, "clean", "again").info.source.sha256 == made.info.source.sha256
        (workspace.datasets / "clean" / "data.jsonl").unlink()
        assert remake(workspace, "clean").restored
        assert [row["prompt"] for row in open_dataset(workspace, "clean").rows()] == [
            row["prompt"] for row in open_dataset(workspace, "again").rows()
        ]

    def test_it_is_not_made_again_of_another_file(self, workspace: Workspace) -> None:
        rows = pairs(rows=12)
        added(workspace, [*rows, rows[0]])
        drop_found(workspace, lint(workspace, "d"), ("duplicates",), "clean")
        (workspace.datasets / "d").rename(workspace.root / "gone")
        added(workspace, rows)
        with pytest.raises(SourceChanged, match="d is another dataset than the one this was made of"):
            remake(workspace, "clean")

    def test_nothing_to_drop_is_said(self, workspace: Workspace) -> None:
        added(workspace, pairs(rows=12))
        with pytest.raises(UsageError, match="none of it was found in d"):
            drop_found(workspace, lint(workspace, "d"), ("secrets",), "clean")
        assert workspace.names("datasets") == ["d"]


class TestCourse:
    def test_it_can_be_ended_at_any_step_and_leaves_nothing(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own cache"))
        added(workspace, pairs(rows=300))
        steps: list[tuple[int, int]] = []
        lint(workspace, "d", progress=lambda done, total: steps.append((done, total)))
        assert steps[-1][1] == 300

        class Enough(Exception):
            pass

        for stop in (0, 1, len(steps) // 2, len(steps) - 1):
            left = [stop]

            def progress(done: int, total: int, left: list[int] = left) -> None:
                if left[0] == 0:
                    raise Enough
                left[0] -= 1

            with pytest.raises(Enough):
                lint(workspace, "d", progress=progress)
        assert list((tmp_path / "own cache" / "workbench").iterdir()) == []

    def test_every_kind_says_what_to_do_and_none_is_left_unsaid(self, workspace: Workspace) -> None:
        added(workspace, chats())
        report = lint(workspace, "d")
        looked_for = {"unreadable", "duplicates", "secrets"}
        assert looked_for.isdisjoint(report.not_looked_for)
        assert {"lost-difference", "leaked-rows", "length-bias"} <= report.not_looked_for.keys()
        assert all(kind.remedy and kind.title for kind in KINDS.values())


class TestCommand:
    def run(self, workspace: Workspace, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
        code = main(["--workspace", str(workspace.root), "data", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    def test_exit_codes_json_and_drop(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        rows = pairs()
        rows[5] = {**rows[5], "chosen": rows[5]["chosen"] + f" {TOKEN}\x1b[2J"}
        added(workspace, rows)
        code, out, err = self.run(workspace, capsys, "lint", "d")
        assert code == 1
        assert "secrets  1 row: what looks like a key" in out
        assert "GitHub token" in out
        assert TOKEN not in out
        assert "\x1b" not in out + err
        code, out, _ = self.run(workspace, capsys, "lint", "d", "--json", "--drop", "secrets", "--to", "clean")
        told = json.loads(out)
        assert (code, told["made"], told["made_rows"]) == (0, "clean", ROWS - 1)
        assert [one["kind"] for one in told["findings"]] == ["control-characters", "secrets"]
        assert told["findings"][1]["rows"] == [{"row": 6, "ordinal": 5, "detail": "GitHub token"}]
        assert self.run(workspace, capsys, "lint", "clean")[0] == 0
        code, out, _ = self.run(workspace, capsys, "remake", "clean")
        assert (code, out.split()[0]) == (0, "clean")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--drop", "secrets"], "--drop KIND and --to NEW go together"),
            (["--drop", "sekrets", "--to", "x"], "there is no such finding"),
            (["--drop", "length-bias", "--to", "x"], "there is no such finding"),
            (["--max-length", "12"], "it needs --model M"),
            (["--only", ","], "name at least one"),
            (["--only", "emails", "--drop", "secrets", "--to", "x"], "not among --only"),
            (["--drop", "secrets", "--to", "d"], "the name d is taken"),
        ],
    )
    def test_wrong_use(
        self, workspace: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
    ) -> None:
        added(workspace, pairs(rows=3))
        code, out, err = self.run(workspace, capsys, "lint", "d", *arguments)
        assert (code, out) == (1 if "taken" in said else 2, "")
        assert said in err


class TestOneRow:
    def test_secrets_are_named_and_never_quoted(self) -> None:
        keys = {
            "AWS key": "AKIA" + "ABCDEFGH12345678",
            "API key": "sk-" + "proj-" + "a1" * 24,
            "Hugging Face token": "hf_" + "Ab" * 17,
            "Google key": "AIza" + "B" * 35,
            "Slack token": "xoxb" + "-1234567890-abcdef",
            "private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
            "signed token": "eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + "." + "c" * 12,
            "password in an address": "postgres://admin:" + "hunter22@db.corp.io/x",
        }
        for name, key in keys.items():
            assert secrets_in([f"here: {key} there"]) == name
        harmless = ["AKIAIOSFODNN7EXAMPLE", "sk-learn-is-a-library-for-machine-learning-in-python", "git@github.com",
                    "ftp://user:password@ftp.corp.io", "ftp://u:hunter22@ftp.example.com", "https://a.b/c:d@e",
                    "ghost_town_" + "a" * 40]  # fmt: skip
        assert secrets_in(harmless) == ""

    def test_addresses(self) -> None:
        assert addresses_in(["a.b+c@mail.corp.co.uk and x@y.io", "me@example.com, you@host.test, @name, 3@4"]) == 2

    def test_characters(self) -> None:
        assert harmful_characters(["tab\t, line\r\n, é, 👩‍👧 family, नि"]) == ""
        assert (
            harmful_characters(["\x1b[0m\ufffd", "\u200b"])
            == "U+001B, U+FFFD replacement character, U+200B zero width space"
        )

    def test_tools(self) -> None:
        call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
        result, ask = {"role": "tool", "content": "1"}, {"role": "user", "content": "?"}
        answer = {"role": "assistant", "content": "one"}
        assert broken_order({"messages": [ask, call, result, result, answer]}) == ""
        assert broken_order({"messages": [ask, answer, result, answer]}) == "a tool turn that answers no call"
        assert (
            broken_order({"prompt": [answer, ask], "completion": [answer]}) == "the first turn is assistant, not user"
        )

    def test_a_set_of_rows(self) -> None:
        bits = RowBits()
        assert [bits.add(place) for place in (9, 0, 9, 70_000)] == [True, True, False, True]
        assert (list(bits), bits.count) == ([0, 9, 70_000], 3)
        assert 9 in bits
        assert 8 not in bits
        assert 10**9 not in bits
