"""What a run's data gives once it is tokenised, from the first rows of it: lengths, what is cut, dropped and split.

Owns the reading of that sample, which is the engine's own, and its words. Invariant: counts are of the rows that were
read and say so; nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workbench.run_examples import Example
from workbench.run_launch import Plan

if TYPE_CHECKING:
    from engine.data.reading import ReadingCounts
    from engine.data.token_facts import TokenFacts

ROWS_READ = 256
"""Of all sources together, each an equal part."""


@dataclass(frozen=True)
class ReadSample:
    """The first rows of a run's training data, read as the engine reads them."""

    rows: int
    examples: int
    tokens: int
    """Through the model, both answers of a pair counted."""
    truncated: int
    """Examples that lose their end at data.max_length."""
    dropped: Mapping[str, int]
    """Examples that are lost, by reason."""
    treatments: Mapping[str, int]
    """Rows by how a chat or a long text is made into examples."""
    refusal: str = ""
    """Why the template refused the first row that it refused."""
    lengths: TokenFacts | None = None
    """Of the examples; None where there are none."""

    def facts(self) -> dict[str, Any]:
        """For a program."""
        sample = asdict(self)
        sample.pop("lengths")
        return {"sample": sample}


def read_samples(plan: Plan, rows_each: Sequence[Sequence[Example]]) -> tuple[ReadSample, list[ReadSample]]:
    """Tokenise some rows of each source of a plan: what all of them give, and what each.

    Raises EngineError where the model's tokenizer or template cannot be used.
    """
    # These load the tokenizer library, for which a screen that opens has no time.
    from engine.data.reading import REFUSED, ReadingCounts, RowExamples
    from engine.data.tokenised import reading_for
    from engine.errors import DataError
    from workbench.run_chat import tokenizer_of

    config = plan.resolved.config
    tokenizer, reading = tokenizer_of(config.chat, plan.model), reading_for(config)
    share = config.train.share_prompts
    total, each = ReadingCounts(), []
    everything: list[Any] = []
    for rows in rows_each:
        counts = ReadingCounts()
        examples: list[Any] = []
        for row in rows:
            try:
                found = reading.read(
                    dict(row), str(row["id"]), tokenizer=tokenizer, max_length=reading.max_length, **reading.settings
                )
            except DataError as error:
                counts.refusal = counts.refusal or str(error)
                total.refusal = total.refusal or str(error)
                found = RowExamples.nothing(REFUSED)
            counts.add(found)
            total.add(found)
            examples += found.examples
        each.append(_sample(len(rows), examples, counts, share))
        everything += examples
    return _sample(sum(map(len, rows_each)), everything, total, share), each


def _sample(rows: int, examples: Sequence[Any], counts: ReadingCounts, share_prompts: bool) -> ReadSample:
    from engine.data.token_facts import token_facts, tokens_of

    dropped, treatments = dict(counts.dropped), dict(counts.treatments)
    tokens = sum(tokens_of(examples, share_prompts=share_prompts))
    lengths = token_facts(examples, share_prompts=share_prompts)
    return ReadSample(rows, len(examples), tokens, counts.truncated, dropped, treatments, counts.refusal, lengths)


def sample_words(facts: Mapping[str, Any]) -> dict[str, str]:
    """What a person should know of the sample: names and values; only what there is something to say of."""
    sample = facts["sample"]
    of = f"of the first {sample['rows']:,} rows"
    words: dict[str, str] = {}
    if sample["truncated"]:
        words["cut"] = f"{sample['truncated']:,} {of} lose their end at data.max_length"
    if sample["dropped"]:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in sample["dropped"].items())
        why = f": {sample['refusal']}" if sample["refusal"] else ""
        words["dropped"] = f"{sum(sample['dropped'].values()):,} {of} ({reasons}){why}"
        if not sample["examples"]:
            words["problem"] = f"no row {of} can be used: a run would find nothing to train on and fail"
    if sample["treatments"]:
        words["chats"] = "; ".join(f"{how}: {count:,}" for how, count in sample["treatments"].items()) + f" {of}"
    return words
