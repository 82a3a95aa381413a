"""The sample model: what `from_pretrained` loads, what its tokenizer promises, and that its script makes it again."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from safetensors import safe_open

from sample_data import ROOT, files, model_proof
from sample_data.model_proof import (
    ALIKE_WINDOWS,
    LIBRARIES,
    SOURCES,
    TOLERANCE,
    WINDOW,
    by_window,
    kept_proof,
    loss_of_the_kept_model,
    made_with,
    prove,
)
from sample_data.texts import PAD, TURN_END, chat_prompt
from sample_data.workshop import ACTIONS, NAMES, PARTS, SYMPTOMS

MODEL = files()["model"]


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    """The tokenizer as transformers loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


def test_the_weights_are_small_and_bf16() -> None:
    with safe_open(MODEL / "model.safetensors", framework="pt") as weights:
        slices = [weights.get_slice(key) for key in weights.keys()]  # noqa: SIM118
        assert {part.get_dtype() for part in slices} == {"BF16"}
    assert 1e6 <= json.loads((MODEL / "TRAINING.json").read_text())["parameters"] <= 3e6


def test_end_of_turn_and_padding_are_two_tokens(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert tokenizer.eos_token == TURN_END
    assert tokenizer.pad_token == PAD
    config = json.loads((MODEL / "config.json").read_text())
    assert (config["pad_token_id"], config["eos_token_id"]) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_chat_template_is_what_the_texts_were_written_in(tokenizer) -> None:  # type: ignore[no-untyped-def]
    turns = [{"role": "user", "content": "My brake squeaks."}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == chat_prompt(
        "My brake squeaks."
    )


@pytest.mark.parametrize(
    "text", ["My brake squeaks.", "Größe 🚲 \t\n\r x", "\x00\x1b[0m", "  two  spaces ", "don't . , !"]
)
def test_any_text_round_trips(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_every_word_that_counts_is_one_token(tokenizer) -> None:  # type: ignore[no-untyped-def]
    for word in (*NAMES, *PARTS, *SYMPTOMS, *ACTIONS):
        assert len(tokenizer(f" {word}", add_special_tokens=False).input_ids) == 1, word


def test_transformers_loads_it_and_it_ends_its_answer(tokenizer) -> None:  # type: ignore[no-untyped-def]
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MODEL)
    prompt = chat_prompt("I am Mia and my brake squeaks. Answer in one line, with a note.")
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    torch.manual_seed(0)
    out = model.generate(ids, attention_mask=torch.ones_like(ids))[0, ids.shape[1] :]
    assert out[-1] == tokenizer.eos_token_id
    assert "brake" in tokenizer.decode(out) or "squeaks" in tokenizer.decode(out)


@pytest.mark.slow
def test_the_script_reaches_the_same_held_out_loss_again(tmp_path: Path) -> None:
    """By its first steps, while nothing has changed since it was trained as a whole; else as a whole."""
    from sample_data.make_model import Recipe, train, train_tokenizer

    kept = kept_proof()
    assert asdict(Recipe()) == json.loads((MODEL / "TRAINING.json").read_text())["recipe"]
    assert kept.heldout_loss_nats_per_token == pytest.approx(loss_of_the_kept_model(), rel=TOLERANCE)
    if kept.made_with != made_with():
        proof = prove(tmp_path)
        assert proof.heldout_loss_nats_per_token == pytest.approx(loss_of_the_kept_model(), rel=TOLERANCE)
        return
    _, losses = train(train_tokenizer(seed=1), Recipe(), until=ALIKE_WINDOWS * WINDOW)
    assert by_window(losses) == pytest.approx(kept.loss_by_window[:ALIKE_WINDOWS], rel=TOLERANCE)


@pytest.mark.slow
def test_what_the_script_writes_is_loaded_and_described(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sample_data.make_model import Recipe, make

    loss, losses = make(Recipe(steps=2), tmp_path)
    report = json.loads((tmp_path / "TRAINING.json").read_text())
    assert len(losses) == 2
    assert report["recipe"] == asdict(Recipe(steps=2))
    assert report["heldout_loss_nats_per_token"] == pytest.approx(loss, abs=1e-5)
    assert loss > loss_of_the_kept_model()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() == report["parameters"]
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == report["vocabulary"]


def test_what_a_proof_was_made_with_changes_with_a_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in SOURCES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    before = made_with()
    assert set(before) == {*SOURCES, *LIBRARIES}
    monkeypatch.setattr(model_proof, "ROOT", tmp_path)
    assert made_with() == before
    with (tmp_path / "texts.py").open("a") as source:
        source.write("# another\n")
    assert {name for name, value in made_with().items() if value != before[name]} == {"texts.py"}
