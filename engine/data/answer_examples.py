"""Examples of answers to be scored: a prompt and one answer to it, as token ids.

Owns the shape of these rows. The truncation rule is that of examples.py. Torch-free; knows nothing of packing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.data.chat import ChatTokenizer
from engine.data.examples import PROMPT_TOO_LONG
from engine.data.reading import EMPTY, ReadingCounts, Row, RowExamples, read_all, talk, words_of


@dataclass(frozen=True)
class AnswerExample:
    """One answer to one prompt."""

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def answer_row(row: Row, name: str, tokenizer: ChatTokenizer, max_length: int) -> RowExamples[AnswerExample]:
    """A row {"prompt", "completion"}, rendered as a pair's answer is, so that a reward model reads the same last token.

    Raises BrokenRow where a field is missing and DataError where the template refuses the prompt.
    """
    prompt, completion = talk(row, "prompt"), talk(row, "completion")
    if not words_of(completion):
        return RowExamples.nothing(EMPTY)
    prompt_ids = tuple(tokenizer.prompt_ids(prompt))
    room = max_length - len(prompt_ids)
    if room <= 0:
        return RowExamples.nothing(PROMPT_TOO_LONG)
    answer = tuple(tokenizer.completion_ids(prompt, completion))
    return RowExamples((AnswerExample(name, prompt_ids, answer[:room]),), truncated=int(len(answer) > room))


def read_answers(file: Path, tokenizer: ChatTokenizer, max_length: int) -> tuple[list[AnswerExample], ReadingCounts]:
    """Every `answer_row` of a file. Raises DataError, also where no row is usable."""
    return read_all(file, partial(answer_row, tokenizer=tokenizer, max_length=max_length), max_length)
