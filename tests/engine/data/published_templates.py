"""The published chat templates that tests render, and tiny tokenizers that know their special tokens.

Those of Qwen3, Llama 3, 3.1, 3.2 and Gemma 3 are read from the installed trl 1.16.0 (Apache-2.0), which ships them to
recognise models by. MISTRAL and SMOLLM2 are our own writing and reproduce what matters here of the templates of
Mistral-7B-Instruct-v0.3 and SmolLM2-135M-Instruct: the system's words and the tools stand at the last question alone,
and go once it is answered; a system turn of its own where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import trl
from tokenizers import Tokenizer

from engine.data.chat import ChatTokenizer

MISTRAL = """{{- bos_token }}
{%- set questions = messages | selectattr('role', 'equalto', 'user') | list %}
{%- set turns = messages[1:] if messages[0].role == 'system' else messages %}
{%- for message in turns %}
    {%- if message.role == 'user' %}
        {%- if tools and message == questions[-1] %}
            {{- '[AVAILABLE_TOOLS] ' ~ tools | tojson ~ '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {%- set before = messages[0].content ~ '\n\n' if loop.last and messages[0].role == 'system' else '' %}
        {{- '[INST] ' ~ before ~ message.content ~ '[/INST]' }}
    {%- elif message.tool_calls is defined %}
        {{- '[TOOL_CALLS] ' ~ message.tool_calls | map(attribute='function') | list | tojson ~ eos_token }}
    {%- elif message.role == 'assistant' %}
        {{- ' ' ~ message.content | trim ~ eos_token }}
    {%- elif message.role == 'tool' %}
        {{- '[TOOL_RESULTS] ' ~ {'content': message.content} | tojson ~ '[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"""
SMOLLM2 = """{%- if messages[0].role != 'system' -%}
    {{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}
{%- endif -%}
{%- for message in messages -%}
    {{ '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""
CHATML = ("<|im_start|>", "<|im_end|>")
LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = ("<bos>", "<start_of_turn>", "<end_of_turn>")
BRACKETS = ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]")
FAMILIES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "qwen3": ("", CHATML, "<|im_end|>"),
    "llama3": ("", LLAMA, "<|eot_id|>"),
    "llama3_1": ("", LLAMA, "<|eot_id|>"),
    "llama3_2": ("", LLAMA, "<|eot_id|>"),
    "gemma3": ("", GEMMA, "<end_of_turn>"),
    "mistral": (MISTRAL, BRACKETS, "</s>"),
    "smollm2": (SMOLLM2, CHATML, "<|im_end|>"),
}
"""Family -> (template, or "" where trl has it; special tokens, the one that begins a text first; what ends a turn)."""


def published(family: str) -> str:
    """The source of a family's template."""
    own, _, _ = FAMILIES[family]
    return own or (Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja").read_text(encoding="utf-8")


def write_family(family: str, folder: Path, write_tokenizer: Callable[..., None]) -> ChatTokenizer:
    """A tiny tokenizer in `folder` with the template and the special tokens of a family."""
    _, special, end_of_turn = FAMILIES[family]
    write_tokenizer(folder, chat_template=published(family))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"eos_token": end_of_turn} | ({} if special == CHATML else {"bos_token": special[0]})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return ChatTokenizer.from_folder(folder)
