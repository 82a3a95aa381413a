"""Writes `data/*.jsonl`, `faults/*` and `SHA256SUMS`, bit for bit the same on every machine.

    python -m sample_data.make_data [--out DIR]

All of it is synthetic: worded by `workshop`, errors drawn at random, verdicts given by `gold_rule`. Every file has its
own seeded generator, so one file can change without moving the others.
"""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from sample_data import ROOT
from sample_data.gold_rule import score
from sample_data.make_faults import fault_files
from sample_data.texts import draw_wrong
from sample_data.workshop import (
    COMPONENTS,
    Ticket,
    draw_ticket,
    heldout_pairs,
    make_wrong,
    training_pairs,
    word_answer,
    word_prompt,
)

Pairs = list[tuple[str, str]]
Row = dict[str, object]

DEMONSTRATION_ERROR_RATE = 0.125
ERROR_WEIGHTS = {"name": 3, "part": 5, "symptom": 5, "action": 5, "form": 2, "note": 2}
"""How often each component is the wrong one in a rejected answer: content more often, since it is harder to see."""

VERDICT_SOURCE = "rule (synthetic)"


def demonstrations(rng: random.Random, count: int, pairs: Pairs, prefix: str) -> Iterable[Row]:
    """Answers with each component wrong by itself in one case of eight."""
    for number in range(1, count + 1):
        ticket = draw_ticket(rng, pairs)
        prompt = word_prompt(rng, ticket)
        said = make_wrong(rng, ticket, draw_wrong(rng, DEMONSTRATION_ERROR_RATE))
        yield {
            "id": f"{prefix}-{number:04d}",
            "prompt": prompt,
            "completion": word_answer(rng, said),
            "combination": ticket.combination,
        }


def preferences(rng: random.Random, count: int, pairs: Pairs, prefix: str) -> Iterable[Row]:
    """Two answers of which the rule scores the first higher.

    The rejected answer has the chosen one's errors (none in three pairs of four) and one or two more. A wrong word is
    right for another prompt, and as common among chosen answers, so the answer alone tells nothing.
    """
    for number in range(1, count + 1):
        ticket = draw_ticket(rng, pairs)
        prompt = word_prompt(rng, ticket)
        worse = _draw_errors(rng, 1 if rng.random() < 0.75 else 2, frozenset())
        shared = _draw_errors(rng, 1, worse) if rng.random() < 0.25 else frozenset()
        chosen = word_answer(rng, make_wrong(rng, ticket, shared))
        rejected = word_answer(rng, make_wrong(rng, ticket, shared | worse))
        if score(prompt, chosen).total <= score(prompt, rejected).total:
            raise ValueError(f"{prefix}-{number:04d}: the rule does not prefer the chosen answer")
        yield {
            "id": f"{prefix}-{number:04d}",
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "verdict_source": VERDICT_SOURCE,
            "error": _joined(worse),
            "shared_error": _joined(shared),
            "combination": ticket.combination,
        }


def pairs_without_verdicts(rng: random.Random, rows: Iterable[Row]) -> Iterable[Row]:
    """The same answers as in `rows`, as a and b in random order, with nothing that tells which is better."""
    for row in rows:
        a, b = row["chosen"], row["rejected"]
        if rng.random() < 0.5:
            a, b = b, a
        identity = str(row["id"]).replace("preference", "pair")
        yield {"id": identity, "prompt": row["prompt"], "a": a, "b": b, "combination": row["combination"]}


def prompts(rng: random.Random, count: int, pairs: Pairs, prefix: str) -> Iterable[Row]:
    """Prompts alone: the pairs in turn, each with all four forms equally often, everything else random."""
    for number in range(1, count + 1):
        turn = number - 1
        part, symptom = pairs[turn % len(pairs)]
        form = turn // len(pairs) % 4
        drawn = draw_ticket(rng, [(part, symptom)])
        ticket = Ticket(drawn.name, part, symptom, drawn.action, form in (1, 3), form in (2, 3))
        yield {"id": f"{prefix}-{number:04d}", "prompt": word_prompt(rng, ticket), "combination": ticket.combination}


def data_files() -> dict[str, list[Row]]:
    """All rows by file name."""
    train, held = training_pairs(), heldout_pairs()
    train_preferences = list(preferences(random.Random(12), 5000, train, "preference"))
    return {
        "sft.jsonl": list(demonstrations(random.Random(10), 1600, train, "sft")),
        "heldout_sft.jsonl": list(demonstrations(random.Random(11), 600, held, "heldout-sft")),
        "preferences.jsonl": train_preferences,
        "pairs.jsonl": list(pairs_without_verdicts(random.Random(13), train_preferences)),
        "heldout_pairs.jsonl": list(preferences(random.Random(14), 1000, held, "heldout-pair")),
        "prompts_train.jsonl": list(prompts(random.Random(15), 1440, train, "prompt")),
        "prompts_heldout.jsonl": list(prompts(random.Random(16), 672, held, "heldout-prompt")),
    }


def write_all(out: Path) -> dict[str, str]:
    """Write every file below `out` and return sha256 by relative path, the content of `SHA256SUMS`."""
    contents = {f"data/{name}": _jsonl(rows) for name, rows in data_files().items()}
    contents |= {f"faults/{name}": content for name, content in fault_files().items()}
    sums = {}
    for name, content in sorted(contents.items()):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
        sums[name] = hashlib.sha256(content).hexdigest()
    (out / "SHA256SUMS").write_text("".join(f"{sums[name]}  {name}\n" for name in sums), encoding="ascii", newline="\n")
    return sums


def _draw_errors(rng: random.Random, count: int, taken: frozenset[str]) -> frozenset[str]:
    """`count` different components, none of them in `taken`, drawn by ERROR_WEIGHTS."""
    drawn: set[str] = set()
    while len(drawn) < count:
        drawn |= {*rng.choices(list(ERROR_WEIGHTS), list(ERROR_WEIGHTS.values()))} - taken
    return frozenset(drawn)


def _joined(components: frozenset[str]) -> str:
    return "+".join(component for component in COMPONENTS if component in components)


def _jsonl(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def main(argv: list[str] | None = None) -> int:
    """Entry point; prints one line per file."""
    parser = argparse.ArgumentParser(prog="python -m sample_data.make_data", description="Write the sample data files.")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder to write below (default: this package)")
    for name, digest in write_all(parser.parse_args(argv).out).items():
        print(f"{digest}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
