"""Arguments of a chat template: how they are written, and that one text renders as if they were given."""

from __future__ import annotations

from typing import Any

import pytest

from engine.data.chat_template import ChatTemplate
from engine.data.template_arguments import parse_arguments, with_arguments
from engine.errors import ConfigError
from tests.engine.data.published_templates import published


def rendered(source: str, **given: Any) -> str:
    """What transformers' sandbox makes of a template that is given some variables."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    talk = [{"role": "user", "content": "a"}]
    text: str = _compile_jinja_template(source).render(messages=talk, add_generation_prompt=True, **given)
    return text


class TestWriting:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", {}),
            ("enable_thinking=false", {"enable_thinking": False}),
            (' a = 1.5, b = "x, y=z" ,c=null', {"a": 1.5, "b": "x, y=z", "c": None}),
            ("date_string=26 Jul 2024, n=[1, 2]", {"date_string": "26 Jul 2024", "n": [1, 2]}),
            ("version=1.2.3", {"version": "1.2.3"}),
        ],
    )
    def test_values_are_json_or_else_text(self, text: str, expected: dict[str, Any]) -> None:
        assert parse_arguments(text) == expected

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("enable_thinking", "'enable_thinking' is no name of an argument"),
            ("a=1, a=2", "'a' is no name"),
            ("1a=1", "'1a' is no name"),
            ("messages=[]", "messages is given to every template"),
            ("eos_token=x", "eos_token is given"),
        ],
    )
    def test_what_cannot_be_read(self, text: str, reason: str) -> None:
        with pytest.raises(ConfigError, match=reason):
            parse_arguments(text)


class TestInside:
    def test_qwen3_without_thinking_for_whoever_loads_it(self) -> None:
        source = published("qwen3")
        inside = with_arguments(source, parse_arguments("enable_thinking=false"))
        assert rendered(inside) == rendered(source, enable_thinking=False) != rendered(source)
        assert rendered(inside, enable_thinking=True) == rendered(source), "who gives a value still decides"
        talk = [{"role": "user", "content": "a"}]
        assert ChatTemplate(inside, {}, "x").render(talk, add_generation_prompt=True) == rendered(inside)

    def test_any_value_survives(self) -> None:
        given = {"text": 'a "b" {{ c }} %} {# é \n \\ \U0001f9ed', "list": [1, {"x": None, "y": "%}"}], "no": None}
        source = "{{ text }}|{{ list | tojson }}|{{ no is none }}"
        assert rendered(with_arguments(source, given)) == rendered(source, **given)

    def test_the_beginning_of_a_template_stays(self) -> None:
        source = "\n  {% if x %}a{% endif %}\n b"
        assert rendered(with_arguments(source, {"x": 1})) == rendered(source, x=1)
