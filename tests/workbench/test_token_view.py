"""Rows in tokens: the child that makes them, and lines that tell trained from read without a colour."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from workbench.child_programs import child_environment
from workbench.errors import UsageError, WorkbenchError
from workbench.model_names import resolve_model
from workbench.text_wrapping import cells
from workbench.token_view import CONTEXT, CUT, TRAINED, TokenChoice, TokenReader, token_lines


def _token(text: str, trained: bool = False, special: bool = False) -> dict[str, Any]:
    return {"id": 0, "text": text, "trained": trained, "special": special}


def _found(tokens: list[dict[str, Any]], cut_at: int, **more: Any) -> dict[str, Any]:
    trained = sum(token["trained"] for token in tokens)
    lost = sum(token["trained"] for token in tokens[cut_at:])
    one = {
        "name": "",
        "tokens": tokens,
        "total": len(tokens),
        "trained": trained,
        "cut_at": cut_at,
        "trained_cut": lost,
    }
    return {"sequences": [one], "dropped": [], "treatment": "", **more}


def test_kinds_are_told_by_the_first_sign_of_a_line() -> None:
    tokens = [
        _token("<s>", special=True),
        _token("hi"),
        _token(" you", True),
        _token("", True),
        _token("\x1b[2J", True),
    ]
    lines = token_lines(_found(tokens, 4, dropped=["too long"]), TokenChoice("m", 4), 70)
    text = [line for line, _ in lines]
    assert "✗ not trained on: too long" in text
    assert CONTEXT + "⟦<s>⟧hi│" in text
    assert TRAINED + " you│…│" in text
    assert CUT + "␛[2J│" in text
    assert any(line.startswith("── max_length 4: what follows is cut") for line in text)
    assert "1 cut at max_length 4, 1 of them trained" in " ".join(text)


@pytest.mark.parametrize("width", [12, 40, 100])
def test_no_line_is_wider_than_asked(width: int) -> None:
    tokens = [_token("word" * 30), _token("輪" * 40, True), _token("\n"), *[_token(f" {n}") for n in range(90)]]
    lines = token_lines(_found(tokens, 50), TokenChoice(), width)
    assert max(cells(line) for line, _ in lines) <= width
    shown = "".join(line[2:] for line, _ in lines if line.startswith((CONTEXT, TRAINED, CUT)))
    assert "輪" * 40 + "│" in shown
    assert shown.count("│") == len(tokens)


@pytest.mark.parametrize(
    "text", ["", "sample 512", "sample max_length=1", "sample max_length=x", "sample train_on=everything", "m seed=1"]
)
def test_a_choice_that_cannot_be_says_why(text: str) -> None:
    with pytest.raises(UsageError):
        TokenChoice.parse(text)


def test_a_choice_is_written_as_it_is_read() -> None:
    choice = TokenChoice("run:x", 77, "last")
    assert TokenChoice.parse(str(choice)) == choice
    assert TokenChoice.parse("sample") == TokenChoice("sample")


def test_the_child_answers_refuses_and_goes_on() -> None:
    reader, model = TokenReader(), resolve_model(None, "sample", quiet=True)
    try:
        row = {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}
        assert reader.read(model, TokenChoice(), row)["sequences"][0]["trained"] == 2
        child = reader._child
        with pytest.raises(WorkbenchError, match="prompt"):
            reader.read(model, TokenChoice(), {"completion": "x"})
        assert reader.read(model, TokenChoice(), row)["sequences"]
        assert reader._child is child
    finally:
        reader.close()
    assert child is not None
    assert child.poll() is not None


def test_the_child_loads_no_torch() -> None:
    code = "import sys, engine.show_tokens; print('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=child_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
