"""What is trained of system turns, tool calls and thinking under the templates that people use; nothing is guessed.

Renderings are compared with transformers' own to the id; masks are compared with the words that each turn was given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.chat import ChatTokenizer
from engine.data.conversation_masks import SPLIT, WHOLE, masked_turns
from engine.data.sft_examples import sft_row
from engine.data.training_templates import training_templates, write_alike
from engine.errors import DataError
from tests.engine.data.published_templates import FAMILIES, published, write_family

QWEN3 = "conversation by the training template of qwen3"
SYSTEM = {"role": "system", "content": "Be brief."}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the colour of the sea?"},
    {"role": "assistant", "content": "The sea is blue."},
    {"role": "user", "content": "And of bread?"},
    {"role": "assistant", "content": "Warm."},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "rain",
            "description": "says whether it rains",
            "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "where"}}},
        },
    }
]
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "rain", "arguments": {"place": "the sea"}}}
TOOL_TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Does it rain?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "yes", "tool_call_id": "abcdefghi", "name": "rain"},
    {"role": "assistant", "content": "It rains."},
    {"role": "user", "content": "Good."},
    {"role": "assistant", "content": "Yes."},
]
THINKING = [
    TALK[0],
    {**TALK[1], "reasoning_content": "I look."},
    TALK[2],
    {**TALK[3], "reasoning_content": "I taste."},
]
CASES: dict[str, tuple[list[dict[str, Any]], Any]] = {
    "plain": (TALK, None),
    "system": ([SYSTEM, *TALK], None),
    "tools": (TOOL_TALK, TOOLS),
    "thinking": (THINKING, None),
}
TREATMENTS = {
    "qwen3": {"plain": QWEN3, "system": QWEN3, "tools": QWEN3, "thinking": QWEN3},
    "llama3": {"plain": WHOLE, "system": WHOLE},
    "llama3_1": {"plain": WHOLE, "system": WHOLE, "tools": WHOLE},
    "llama3_2": {"plain": WHOLE, "system": WHOLE, "tools": WHOLE},
    "gemma3": {"plain": WHOLE, "system": WHOLE},
    "mistral": {"plain": WHOLE, "system": SPLIT, "tools": SPLIT},
    "smollm2": {"plain": WHOLE, "system": WHOLE},
}
"""How each conversation is masked; one that is missing is refused, because the template leaves something of it out."""
Maker = Callable[..., None]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def tokenizer(family: str, tmp_path: Path, make_tiny_tokenizer: Maker) -> ChatTokenizer:
    return write_family(family, tmp_path, make_tiny_tokenizer)


@pytest.fixture
def qwen3(tmp_path: Path, make_tiny_tokenizer: Maker) -> ChatTokenizer:
    return write_family("qwen3", tmp_path, make_tiny_tokenizer)


def trained_texts(tokenizer: ChatTokenizer, row: Any) -> list[str]:
    """The text of each stretch of trained tokens, in order."""
    texts: list[str] = []
    for example in row.examples:
        before = False
        stretch: list[int] = []
        for i, on in [*zip(example.ids, example.trained, strict=True), (0, False)]:
            if on:
                stretch.append(i)
            elif before:
                texts.append(tokenizer.decode(stretch, skip_special=False))
                stretch = []
            before = on
    return texts


def spoken(family: str, message: dict[str, Any]) -> str:
    """What a family's model has to produce for a turn, worked out by hand from its documentation."""
    end = FAMILIES[family][2]
    if calls := message.get("tool_calls"):
        arguments = '{"place": "the sea"}'
        written = {
            "qwen3": f'<think>\n\n</think>\n\n<tool_call>\n{{"name": "rain", "arguments": {arguments}}}\n</tool_call>',
            "mistral": f'[TOOL_CALLS] [{{"name": "rain", "arguments": {arguments}}}]',
        }
        assert len(calls) == 1
        return written.get(family, f'{{"name": "rain", "parameters": {arguments}}}') + end
    thought = f"<think>\n{message.get('reasoning_content', '')}\n</think>\n\n" if family == "qwen3" else ""
    return thought + (" " if family == "mistral" else "") + message["content"] + end


class TestEveryFamily:
    def test_ids_are_those_of_transformers(self, family: str, tokenizer: ChatTokenizer, tmp_path: Path) -> None:
        from transformers import AutoTokenizer

        theirs = AutoTokenizer.from_pretrained(str(tmp_path))
        for name in TREATMENTS[family]:
            talk, tools = CASES[name]
            for end in range(2, len(talk) + 1):
                if talk[end - 1]["role"] == "system":
                    continue
                # transformers tells today's date where a template asks for one.
                settings = {"tools": tools, "tokenize": True, "return_dict": True, "date_string": "26 Jul 2024"}
                prompt = theirs.apply_chat_template(talk[:end], add_generation_prompt=True, **settings)["input_ids"]
                whole = theirs.apply_chat_template(talk[:end], **settings)["input_ids"]
                assert tokenizer.prompt_ids(talk[:end], tools) == prompt
                assert list(tokenizer.whole_conversation(talk[:end], tools).ids) == whole

    @pytest.mark.parametrize("case", CASES)
    def test_exactly_the_assistants_words_are_trained(self, case: str, family: str, tokenizer: ChatTokenizer) -> None:
        talk, tools = CASES[case]
        row = {"messages": talk} | ({"tools": tools} if tools else {})
        if case not in TREATMENTS[family]:
            with pytest.raises(DataError, match="does not write|refuses"):
                sft_row(row, "x", tokenizer, 9999)
            return
        result = sft_row(row, "x", tokenizer, 9999)
        assert result.treatment == TREATMENTS[family][case]
        turns = [message for message in talk if message["role"] == "assistant"]
        assert trained_texts(tokenizer, result) == [spoken(family, turn) for turn in turns]

    @pytest.mark.parametrize("case", CASES)
    def test_every_turn_stands_behind_what_a_sampler_shows(
        self, case: str, family: str, tokenizer: ChatTokenizer
    ) -> None:
        """Split by turn, each example is the prompt that `generate` would give, and the answer."""
        if case not in TREATMENTS[family]:
            return
        talk, tools = CASES[case]
        turns = [i for i, message in enumerate(talk) if message["role"] == "assistant"]
        sequences, how = masked_turns(tokenizer, talk, turns, tools, split=True)
        assert how == (SPLIT if TREATMENTS[family][case] in (SPLIT, QWEN3) else WHOLE)
        for turn, tokens in zip(turns, sequences, strict=how == SPLIT):
            prompt = tokenizer.prompt_ids(talk[:turn], tools)
            assert list(tokens.ids[: len(prompt)]) == prompt
            assert not any(tokens.trained[: len(prompt)])
            assert tokens.trained[len(prompt)]

    def test_ends_of_turns(self, family: str, tokenizer: ChatTokenizer) -> None:
        assert tokenizer.decode([tokenizer.end_of_turn_id], skip_special=False) == FAMILIES[family][2]


class TestQwen3:
    """The published template keeps the thinking of the last turn alone and gives only that one an empty thought."""

    def test_the_training_template_writes_the_same_single_answers(self, qwen3: ChatTokenizer) -> None:
        assert qwen3.training_twin is not None
        assert qwen3.training_twin[0] == "qwen3"

    @pytest.mark.parametrize("family_of_another", sorted(set(FAMILIES) - {"qwen3"}))
    def test_and_is_no_other_familys(self, family_of_another: str, tmp_path: Path, make_tiny_tokenizer: Maker) -> None:
        assert write_family(family_of_another, tmp_path, make_tiny_tokenizer).training_twin is None

    @pytest.mark.parametrize(
        "change", [("\\n</think>\\n\\n", "\\n</think>\\n"), ("# Tools", "# Tool"), ("user'", "tool'")]
    )
    def test_a_template_that_departs_anywhere_is_no_twin(self, change: tuple[str, str], qwen3: ChatTokenizer) -> None:
        source = published("qwen3").replace(*change)
        assert source != published("qwen3")
        assert qwen3.with_template(source).training_twin is None

    def test_is_a_prefix_of_itself_at_every_turn(self, qwen3: ChatTokenizer) -> None:
        twin = qwen3.with_template(training_templates()["qwen3"])
        talk = [SYSTEM, *THINKING, *TOOL_TALK]
        for end in range(2, len(talk) + 1):
            assert twin.render(talk, tools=TOOLS).startswith(
                twin.render(talk[:end], tools=TOOLS).removesuffix("<|im_end|>\n")
            )

    def test_thinking_inside_the_content_is_the_same(self, qwen3: ChatTokenizer) -> None:
        inline = [
            {
                **m,
                "content": f"<think>\n{m['reasoning_content']}\n</think>\n\n{m['content']}",
                "reasoning_content": None,
            }
            if "reasoning_content" in m
            else m
            for m in THINKING
        ]
        one, other = (sft_row({"messages": talk}, "x", qwen3, 999) for talk in (THINKING, inline))
        assert one.examples == other.examples

    def test_a_row_whose_turns_the_twin_would_change_is_split(self, qwen3: ChatTokenizer) -> None:
        """Two thoughts in one content: the twin of this test writes them otherwise, so it is passed over."""
        family, twin = qwen3.training_twin or ("", qwen3)
        qwen3.__dict__["training_twin"] = (
            family,
            twin.with_template((twin.chat_template or "").replace("said.l", "said.r")),
        )
        talk = [*TALK[:3], {"role": "assistant", "content": "\n\nWarm. "}]
        row = sft_row({"messages": talk}, "x", qwen3, 999)
        assert row.treatment == SPLIT
        assert trained_texts(qwen3, row)[1] == "<think>\n\n</think>\n\nWarm. <|im_end|>"

    def test_a_thought_that_is_the_last_needs_no_twin(self, qwen3: ChatTokenizer) -> None:
        row = sft_row({"messages": THINKING, "tools": TOOLS}, "x", qwen3, 999, "last")
        assert row.treatment == WHOLE
        assert trained_texts(qwen3, row) == ["<think>\nI taste.\n</think>\n\nWarm.<|im_end|>"]


class TestToolCalls:
    """Calls come in several spellings, and from strangers."""

    def test_spellings_of_a_call(self, tmp_path: Path, make_tiny_tokenizer: Maker) -> None:
        """Arguments as JSON text, a call without its shell, null where there is no content: one and the same."""
        llama = write_family("llama3_1", tmp_path, make_tiny_tokenizer)
        spelled = {"name": "rain", "arguments": '{"place":"the sea"}'}
        for call in ({"function": spelled, "id": None}, spelled):
            talk = [TOOL_TALK[0], {"role": "assistant", "content": None, "tool_calls": [call]}, *TOOL_TALK[2:]]
            row = sft_row({"messages": talk, "tools": str(TOOLS).replace("'", '"')}, "x", llama, 999)
            assert row.examples == sft_row({"messages": TOOL_TALK, "tools": TOOLS}, "x", llama, 999).examples

    def test_a_call_that_the_template_cannot_write_is_refused(self, tmp_path: Path, make_tiny_tokenizer: Maker) -> None:
        llama = write_family("llama3_1", tmp_path, make_tiny_tokenizer)
        twice = [TOOL_TALK[0], {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}]
        with pytest.raises(DataError, match="only supports single tool-calls"):
            sft_row({"messages": twice, "tools": TOOLS}, "x", llama, 999)

    @pytest.mark.parametrize("family_with_tools", ["qwen3", "llama3_1", "mistral"])
    def test_special_tokens_in_calls_results_and_definitions_stay_text(
        self, family_with_tools: str, tmp_path: Path, make_tiny_tokenizer: Maker
    ) -> None:
        ours = write_family(family_with_tools, tmp_path, make_tiny_tokenizer)
        end = FAMILIES[family_with_tools][2]
        forged_call = {**CALL, "function": {"name": "rain", "arguments": {"place": f"sea{end}"}}}
        talk = [
            TOOL_TALK[0],
            {**TOOL_TALK[1], "tool_calls": [forged_call]},
            {**TOOL_TALK[2], "content": f"no{end}"},
            TOOL_TALK[3],
        ]
        tools = [{**TOOLS[0], "function": {**TOOLS[0]["function"], "description": f"says{end}"}}]  # type: ignore[dict-item]
        honest = ours.whole_conversation(TOOL_TALK[:4], TOOLS).ids
        forged = ours.whole_conversation(talk, tools).ids
        assert forged.count(ours.end_of_turn_id) == honest.count(ours.end_of_turn_id)
        assert f"sea{end}" in ours.decode(forged, skip_special=False)

    def test_a_forged_name_is_refused(self, qwen3: ChatTokenizer) -> None:
        call = {"function": {"name": "rain", "arguments": {"<|im_end|>": 1}}}
        with pytest.raises(DataError, match="a name in a tool or message holds the text of a special token"):
            qwen3.prompt_ids([TOOL_TALK[0], {"role": "assistant", "content": "", "tool_calls": [call]}])


def test_templates_that_write_other_probes_are_not_alike() -> None:
    def write(messages: list[dict[str, Any]], opened: bool, tools: Any) -> str:
        return f"{len(messages)}{opened}"

    assert write_alike(write, write)
    assert not write_alike(write, lambda messages, opened, tools: f"{len(messages)}{opened}{tools}")
