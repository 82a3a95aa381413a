"""Reading rows for SFT: what is trained of each kind of row, long texts in chunks, conversations that must be split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.chat import ChatTokenizer
from engine.data.reading import ReadingCounts
from engine.data.sft_examples import SftExample, read_sft, sft_row

IM_END = 2
ASK = [{"role": "user", "content": "What is the colour of the sea?"}]
BLUE = [{"role": "assistant", "content": "The sea is blue."}]
RED = [{"role": "assistant", "content": "The sea is red."}]
TALK = [*ASK, *BLUE, {"role": "user", "content": "And of bread?"}, {"role": "assistant", "content": "Warm."}]
FORGETS_THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' and not loop.last %}{{ message.content.split('</think>')[-1] }}"
    "{% else %}{{ message.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def tokenizer(tmp_path: Path, make_tiny_tokenizer: Callable[..., None]) -> ChatTokenizer:
    make_tiny_tokenizer(tmp_path / "tokenizer")
    return ChatTokenizer.from_folder(tmp_path / "tokenizer")


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def trained_text(tokenizer: ChatTokenizer, example: SftExample) -> str:
    ids = [i for i, on in zip(example.ids, example.trained, strict=True) if on]
    return tokenizer.decode(ids, skip_special=False)


class TestRows:
    """Completions, conversations, texts; the mask says what is trained."""

    def test_prompt_and_completion(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        examples, counts = read_sft(write(tmp_path, {"id": "x", "prompt": ASK, "completion": BLUE}), tokenizer, 128)
        prompt, answer = tokenizer.prompt_ids(ASK), tokenizer.completion_ids(ASK, BLUE)
        assert examples[0].id == "x"
        assert examples[0].ids == (*prompt, *answer)
        assert examples[0].trained == (False,) * len(prompt) + (True,) * len(answer)
        assert counts == ReadingCounts()

    def test_train_on_all(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        file = write(tmp_path, {"prompt": ASK, "completion": BLUE})
        ((example,), _), ((whole,), _) = read_sft(file, tokenizer, 128), read_sft(file, tokenizer, 128, "all")
        assert whole.ids == example.ids
        assert all(whole.trained)

    def test_messages_text_and_preferences(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        file = write(
            tmp_path,
            {"id": "m", "messages": [*ASK, *BLUE, *ASK, *RED]},
            {"id": "t", "text": "The cat sat."},
            {"id": "p", "prompt": ASK, "chosen": BLUE, "rejected": RED},
            {"id": "s", "prompt": "The cat", "completion": " sat."},
        )
        examples, _ = read_sft(file, tokenizer, 256)
        by_id = {example.id: example for example in examples}
        assert by_id["m"].ids == tokenizer.conversation([*ASK, *BLUE, *ASK, *RED]).ids
        assert by_id["t"].ids == (*tokenizer.encode("The cat sat."), IM_END)
        assert all(by_id["t"].trained)
        assert by_id["p"].ids == (*tokenizer.prompt_ids(ASK), *tokenizer.completion_ids(ASK, BLUE))
        assert by_id["s"].ids == (*tokenizer.encode("The cat"), *tokenizer.encode(" sat."), IM_END)

    def test_truncation_keeps_the_start_and_puts_no_end_back(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        file = write(tmp_path, {"prompt": ASK, "completion": BLUE})
        prompt = len(tokenizer.prompt_ids(ASK))
        whole = read_sft(file, tokenizer, 128)[0][0]
        (cut,), counts = read_sft(file, tokenizer, prompt + 3)
        assert (counts.truncated, counts.dropped) == (1, {})
        assert cut.ids == whole.ids[: prompt + 3]
        assert cut.trained.count(True) == 3
        assert IM_END not in cut.ids[prompt:]

    def test_rows_that_teach_nothing_are_counted(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        prompt = len(tokenizer.prompt_ids(ASK))
        file = write(
            tmp_path,
            {"prompt": ASK, "completion": [{"role": "assistant", "content": " \n"}]},
            {"prompt": ASK, "completion": BLUE},
            {"messages": ASK},
            {"messages": [*ASK, {"role": "assistant", "content": ""}]},
            {"text": " "},
            {"text": "The cat sat."},
        )
        examples, counts = read_sft(file, tokenizer, prompt)
        assert [example.id for example in examples] == ["6"]
        assert counts.dropped == {
            "too long: no token of the answer is left after truncation": 1,
            "empty completion": 3,
            "refused by the chat template": 1,
        }


class TestTrainOn:
    """`sft.train_on`: which turns carry the loss."""

    @pytest.mark.parametrize(
        ("train_on", "expected"),
        [
            ("completion", "The sea is blue.<|im_end|>Warm.<|im_end|>"),
            ("assistant", "The sea is blue.<|im_end|>Warm.<|im_end|>"),
            ("last", "Warm.<|im_end|>"),
        ],
    )
    def test_of_messages(self, train_on: str, expected: str, tokenizer: ChatTokenizer) -> None:
        row = sft_row({"messages": TALK}, "x", tokenizer, 256, train_on)
        assert trained_text(tokenizer, row.examples[0]) == expected
        assert row.examples[0].ids == tokenizer.conversation(TALK).ids
        assert row.treatment == "conversation in one rendering"

    @pytest.mark.parametrize(
        ("train_on", "expected"),
        [
            ("completion", "Warm.<|im_end|>"),
            ("assistant", "The sea is blue.<|im_end|>Warm.<|im_end|>"),
            ("last", "Warm.<|im_end|>"),
        ],
    )
    def test_of_a_prompt_that_holds_answers(self, train_on: str, expected: str, tokenizer: ChatTokenizer) -> None:
        row = sft_row({"prompt": TALK[:3], "completion": TALK[3:]}, "x", tokenizer, 256, train_on)
        assert trained_text(tokenizer, row.examples[0]) == expected

    def test_completion_of_several_turns_trains_no_header(self, tokenizer: ChatTokenizer) -> None:
        row = sft_row({"prompt": ASK, "completion": [*BLUE, *RED]}, "x", tokenizer, 256)
        assert trained_text(tokenizer, row.examples[0]) == "The sea is blue.<|im_end|>The sea is red.<|im_end|>"

    def test_all_trains_the_whole_rendering(self, tokenizer: ChatTokenizer) -> None:
        (example,) = sft_row({"messages": [*TALK, *ASK]}, "x", tokenizer, 256, "all").examples
        assert trained_text(tokenizer, example) == tokenizer.render([*TALK, *ASK])


class TestLongTexts:
    """Full-text training loses no token of a long document."""

    def test_every_token_but_the_first_is_a_target_exactly_once(self, tokenizer: ChatTokenizer) -> None:
        text = "The cat sat on the mat and looked at the rain. " * 5
        whole = tokenizer.whole_text(text).ids
        for longest in (2, 7, len(whole) - 1):
            row = sft_row({"text": text}, "x", tokenizer, longest, "all")
            targets = [i for e in row.examples for i, on in zip(e.ids[1:], e.trained[1:], strict=True) if on]
            assert tuple(targets) == whole[1:]
            assert all(len(example.ids) <= longest for example in row.examples)
            assert (row.truncated, row.dropped, row.treatment) == (0, (), "text cut into chunks of max_length")
        (short,) = sft_row({"text": text}, "x", tokenizer, len(whole), "all").examples
        assert short.ids == whole

    def test_otherwise_the_start_is_kept_and_counted(self, tokenizer: ChatTokenizer) -> None:
        row = sft_row({"text": "The cat sat on the mat. " * 5}, "x", tokenizer, 8)
        assert [len(example.ids) for example in row.examples] == [8]
        assert row.truncated == 1


class TestSplit:
    """A template that rewrites earlier turns: one example a turn, as the model would be shown it."""

    @pytest.fixture
    def forgetful(self, tmp_path: Path, make_tiny_tokenizer: Callable[..., None]) -> ChatTokenizer:
        make_tiny_tokenizer(tmp_path / "forgetful", chat_template=FORGETS_THINKING)
        return ChatTokenizer.from_folder(tmp_path / "forgetful")

    TALK = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>x</think>b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "<think>y</think>d"},
    )

    def test_each_turn_behind_its_prompt(self, forgetful: ChatTokenizer) -> None:
        row = sft_row({"messages": list(self.TALK)}, "x", forgetful, 256)
        assert row.treatment == "conversation split into one example a turn"
        first, second = row.examples
        assert first.id == second.id == "x"
        assert trained_text(forgetful, first) == "<think>x</think>b<|im_end|>"
        assert trained_text(forgetful, second) == "<think>y</think>d<|im_end|>"
        shown = forgetful.decode(second.ids, skip_special=False)
        assert shown == forgetful.render(self.TALK[:3], True) + "<think>y</think>d<|im_end|>"
        assert "<think>x" not in shown

    def test_last_turn_alone_needs_no_split(self, forgetful: ChatTokenizer) -> None:
        row = sft_row({"messages": list(self.TALK)}, "x", forgetful, 256, "last")
        assert row.treatment == "conversation in one rendering"
        assert trained_text(forgetful, row.examples[0]) == "<think>y</think>d<|im_end|>"

    def test_turns_that_do_not_fit_are_dropped_and_counted(self, forgetful: ChatTokenizer) -> None:
        longest = len(forgetful.conversation(self.TALK[:2]).ids)
        row = sft_row({"messages": list(self.TALK)}, "x", forgetful, longest)
        assert len(row.examples) == 1
        assert row.dropped == ("too long: no token of the answer is left after truncation",)

    def test_a_template_that_rewrites_even_the_prompt_is_refused(
        self, tmp_path: Path, make_tiny_tokenizer: Callable[..., None]
    ) -> None:
        """The generation prompt opens a thought that no rendering of an answer holds: there is no mask to prove."""
        make_tiny_tokenizer(
            tmp_path / "p", chat_template=FORGETS_THINKING.replace("assistant\n' }}", "assistant\n<think>' }}")
        )
        row = {"messages": TALK}
        examples, counts = read_sft(write(tmp_path, row, {"text": "a"}), ChatTokenizer.from_folder(tmp_path / "p"), 256)
        assert len(examples) == 1
        assert counts.dropped == {"refused by the chat template": 1}
        assert "differently once the answer follows" in counts.refusal
