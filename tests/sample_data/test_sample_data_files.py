"""The data files: reproduced bit for bit, of the promised shapes, held-out prompts kept apart."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from sample_data import ROOT, files
from sample_data.controls import all_controls, always_longer, shuffled_verdicts
from sample_data.gold_rule import score
from sample_data.make_data import write_all
from sample_data.workshop import PARTS, SYMPTOMS, all_pairs, heldout_pairs, training_pairs

HELD = {f"{part}/{symptom}" for part, symptom in heldout_pairs()}


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a sample file."""
    return [json.loads(line) for line in files()[name].read_text(encoding="utf-8").splitlines()]


def test_the_script_reproduces_every_file_bit_for_bit(tmp_path: Path) -> None:
    sums = write_all(tmp_path)
    assert (tmp_path / "SHA256SUMS").read_bytes() == (ROOT / "SHA256SUMS").read_bytes()
    for name, digest in sums.items():
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == digest, name
    kept = {path.relative_to(ROOT).as_posix() for folder in ("data", "faults") for path in (ROOT / folder).iterdir()}
    assert kept == set(sums)


def test_all_of_it_is_small() -> None:
    sizes = [path.stat().st_size for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(sizes) < 12e6


def test_the_split_is_balanced() -> None:
    assert len(HELD) == 24
    assert set(heldout_pairs()) | set(training_pairs()) == set(all_pairs())
    assert set(Counter(part for part, _ in heldout_pairs()).values()) == {2}
    assert set(Counter(symptom for _, symptom in heldout_pairs()).values()) == {3}


@pytest.mark.parametrize("name", ["sft", "preferences", "pairs", "prompts_train"])
def test_no_training_prompt_is_about_a_held_out_pair(name: str) -> None:
    for row in rows(name):
        words = set(row["prompt"].replace(".", " ").split())
        (part,), (symptom,) = words & set(PARTS), words & set(SYMPTOMS)
        assert f"{part}/{symptom}" == row["combination"]
        assert row["combination"] not in HELD


@pytest.mark.parametrize("name", ["heldout_sft", "heldout_pairs", "prompts_heldout"])
def test_every_held_out_pair_is_asked_about(name: str) -> None:
    assert {row["combination"] for row in rows(name)} == HELD


@pytest.mark.parametrize("name", ["preferences", "heldout_pairs"])
def test_verdicts_are_the_rules_and_labelled_synthetic(name: str) -> None:
    for row in rows(name):
        chosen, rejected = score(row["prompt"], row["chosen"]), score(row["prompt"], row["rejected"])
        worse = {key for key in chosen.components if chosen.components[key] > rejected.components[key]}
        assert worse == set(row["error"].split("+"))
        assert chosen.total > rejected.total
        assert row["verdict_source"] == "rule (synthetic)"


def test_pairs_are_the_preferences_without_the_verdict() -> None:
    first = 0
    for pair, preference in zip(rows("pairs"), rows("preferences"), strict=True):
        assert {pair["a"], pair["b"]} == {preference["chosen"], preference["rejected"]}
        assert set(pair) == {"id", "prompt", "a", "b", "combination"}
        first += pair["a"] == preference["chosen"]
    assert 0.45 < first / len(rows("pairs")) < 0.55


def test_demonstrations_leave_room_to_improve() -> None:
    scores = [score(row["prompt"], row["completion"]).total for row in rows("sft")]
    assert 0.86 < sum(scores) / len(scores) < 0.89


def test_controls_learn_nothing_from_the_answer_alone() -> None:
    controls = all_controls(rows("preferences"), rows("heldout_pairs"))
    assert 0.40 <= controls["always_longer"] <= 0.60
    assert 0.40 <= controls["always_shorter"] <= 0.60
    assert controls["bag_of_words"] < 0.60


def test_ties_count_half() -> None:
    assert always_longer([{"chosen": "ab", "rejected": "cd"}, {"chosen": "abc", "rejected": "d"}]) == 0.75


def test_a_bag_of_words_learns_when_there_is_something_to_learn() -> None:
    telling = [row | {"rejected": row["rejected"] + " Sorry."} for row in rows("preferences")[:300]]
    assert all_controls(telling, telling)["bag_of_words"] == 1.0


def test_a_shuffle_exchanges_half_of_every_error_type_and_depends_on_its_seed() -> None:
    kept = rows("preferences")
    shuffled = shuffled_verdicts(kept, seed=1)
    assert shuffled == shuffled_verdicts(kept, seed=1)
    assert shuffled != shuffled_verdicts(kept, seed=2)
    exchanged, total = Counter[str](), Counter(row["error"] for row in kept)
    for row, before in zip(shuffled, kept, strict=True):
        assert {row["chosen"], row["rejected"]} == {before["chosen"], before["rejected"]}
        exchanged[before["error"]] += row["chosen"] != before["chosen"]
    assert all(abs(2 * exchanged[error] - count) <= 1 for error, count in total.items())
