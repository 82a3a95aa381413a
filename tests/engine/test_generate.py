"""`python -m engine.generate`: answers in the order of the prompts, repeatable, and errors on one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import generate
from engine.data.chat import ChatTokenizer
from engine.errors import ConfigError

ASK = [{"role": "user", "content": "What is the colour of the sea?"}]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    rows = [
        {"id": f"p{i}", "prompt": [{"role": "user", "content": f"Name {i} birds." + " More" * i}]} for i in range(4)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def job(folder: Path, prompts: Path, out: Path, **changes: Any) -> dict[str, Any]:
    described = {"model": {"path": str(folder), "adapter": ""}, "prompts": str(prompts), "out": str(out)}
    return {**described, "max_new_tokens": 12, "seed": 5, "device": "cpu", **changes}


def run(folder: Path, described: Any) -> int:
    (folder / "job.json").write_text(json.dumps(described))
    return generate.main([str(folder / "job.json")])


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def trained_adapter(folder: Path, base: Path) -> Path:
    """A LoRA adapter that changes what the tiny model says."""
    from peft import LoraConfig, get_peft_model
    from transformers.models.llama import LlamaForCausalLM

    torch.manual_seed(3)
    model = get_peft_model(
        LlamaForCausalLM.from_pretrained(str(base)), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(str(folder))
    return folder


class TestAnswers:
    def test_order_and_fields(self, tmp_path: Path, prompts: Path, tiny_model_folder: Path) -> None:
        out = tmp_path / "out.jsonl"
        assert run(tmp_path, job(tiny_model_folder, prompts, out, samples=2)) == 0
        answers = rows(out)
        assert [(a["id"], a["sample"]) for a in answers] == [(f"p{i}", j) for i in range(4) for j in range(2)]
        assert set(answers[0]) == {"id", "prompt", "sample", "completion", "stopped", "tokens", "logprob"}
        assert answers[2]["prompt"] == "Name 1 birds. More"
        assert all(a["logprob"] < 0 and 1 <= a["tokens"] <= 12 for a in answers)
        assert answers[0]["completion"] != answers[1]["completion"]

    def test_repeatable_and_independent_of_the_batch(
        self, tmp_path: Path, prompts: Path, tiny_model_folder: Path
    ) -> None:
        texts = []
        for number, changes in enumerate([{}, {"batch_size": 1}, {"seed": 6}]):
            out = tmp_path / f"{number}.jsonl"
            assert run(tmp_path, job(tiny_model_folder, prompts, out, **changes)) == 0
            texts.append([a["completion"] for a in rows(out)])
        assert texts[0] == texts[1]
        assert texts[0] != texts[2]

    def test_answer_does_not_hold_the_end_of_turn(
        self, tmp_path: Path, prompts: Path, make_tiny_model: Callable[..., Path]
    ) -> None:
        """The head's row for the end of turn is made equal to what the model has in mind after the first prompt."""
        from transformers.models.llama import LlamaForCausalLM

        folder = make_tiny_model(tmp_path / "model", tie_word_embeddings=False)
        model = LlamaForCausalLM.from_pretrained(str(folder))
        ids = ChatTokenizer.from_folder(folder).prompt_ids([{"role": "user", "content": "Name 0 birds."}])
        with torch.no_grad():
            model.lm_head.weight[2] = 9 * model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        model.save_pretrained(str(folder))
        assert run(tmp_path, job(folder, prompts, tmp_path / "out.jsonl", temperature=0.0)) == 0
        answer = rows(tmp_path / "out.jsonl")[0]
        assert (answer["completion"], answer["tokens"], answer["stopped"]) == ("", 1, True)

    def test_adapter(self, tmp_path: Path, prompts: Path, tiny_model_folder: Path) -> None:
        """Merged in fp32, the adapter gives what peft gives beside the base."""
        from peft import PeftModel
        from transformers.models.llama import LlamaForCausalLM

        from engine.model.sampler import sample

        adapter = trained_adapter(tmp_path / "adapter", tiny_model_folder)
        model = {"path": str(tiny_model_folder), "adapter": str(adapter)}
        jobs = [
            job(tiny_model_folder, prompts, tmp_path / "base.jsonl", temperature=0.0),
            job(tiny_model_folder, prompts, tmp_path / "tuned.jsonl", temperature=0.0, model=model),
            job(tiny_model_folder, prompts, tmp_path / "again.jsonl", temperature=0.0),
        ]
        assert run(tmp_path, {"jobs": jobs}) == 0
        assert rows(tmp_path / "base.jsonl") == rows(tmp_path / "again.jsonl") != rows(tmp_path / "tuned.jsonl")
        peft_model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(str(tiny_model_folder)), str(adapter))
        tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
        ids = tokenizer.prompt_ids([{"role": "user", "content": "Name 0 birds."}])
        expected = sample(
            peft_model.base_model.model.eval(), [ids],
            max_new_tokens=12, temperature=0.0, stop_ids=tokenizer.stop_ids, seeds=[0], pad_id=3,
        )[0]  # fmt: skip
        answer = rows(tmp_path / "tuned.jsonl")[0]
        assert answer["completion"] == tokenizer.decode(expected.ids)
        assert answer["logprob"] == pytest.approx(sum(expected.log_probs), abs=1e-4)

    def test_model_is_loaded_once_for_jobs_that_share_it(
        self, tmp_path: Path, prompts: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from engine.model import loading

        loads: list[Path] = []
        real = loading.load_for_inference
        monkeypatch.setattr(
            loading,
            "load_for_inference",
            lambda path, *rest, **more: (loads.append(path), real(path, *rest, **more))[1],
        )
        jobs = [job(tiny_model_folder, prompts, tmp_path / f"{i}.jsonl", seed=i) for i in range(3)]
        assert run(tmp_path, {"jobs": jobs}) == 0
        assert len(loads) == 1

    def test_prompt_that_leaves_no_room_is_told(
        self, tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "prompts.jsonl"
        long = [{"role": "user", "content": "birds " * 200}]
        file.write_text(json.dumps({"id": "a", "prompt": long}) + "\n" + json.dumps({"id": "b", "prompt": ASK}) + "\n")
        assert run(tmp_path, job(tiny_model_folder, file, tmp_path / "out.jsonl")) == 0
        assert [a["id"] for a in rows(tmp_path / "out.jsonl")] == ["b"]
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert told[0]["what"].startswith("1 prompts have no answers (too long")
        assert (told[-1]["done"], told[-1]["total"]) == (1, 1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"temprature": 1}, "'temprature' is not a setting"),
            ({"model": "x"}, "model: expected"),
            ({"temperature": -1}, "temperature = -1"),
            ({"top_p": 0}, "top_p = 0"),
            ({"samples": 1.5}, "samples = 1.5"),
            ({"max_new_tokens": True}, "max_new_tokens = True"),
            ({"device": "tpu"}, "device = 'tpu'"),
        ],
    )
    def test_settings(self, changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
        (tmp_path / "job.json").write_text(json.dumps(job(tmp_path, tmp_path, tmp_path / "out", **changes)))
        with pytest.raises(ConfigError, match=reason):
            generate.read_jobs(tmp_path / "job.json")

    @pytest.mark.parametrize("text", ["", "[1]", '{"jobs": 3}', '{"model": {"path": "x"}}'])
    def test_job_file(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "job.json").write_text(text)
        with pytest.raises(ConfigError):
            generate.read_jobs(tmp_path / "job.json")

    def test_program_says_it_on_one_line(
        self, tmp_path: Path, prompts: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "bad\x1b[31m").mkdir()
        described = job(tmp_path / "bad\x1b[31m", prompts, tmp_path / "out.jsonl")
        (tmp_path / "job.json").write_text(json.dumps(described))
        assert generate.main([str(tmp_path / "job.json")]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert "no tokenizer.json" in err
        assert "\x1b" not in err
        assert not (tmp_path / "out.jsonl").exists()

    def test_wrong_use(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert generate.main([]) == 2
        assert "usage" in capsys.readouterr().err

    def test_cuda_that_is_not_there(
        self, tmp_path: Path, prompts: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert run(tmp_path, job(tiny_model_folder, prompts, tmp_path / "out.jsonl", device="cuda")) == 1
        assert "--device cpu" in capsys.readouterr().err

    def test_unwritable_out(
        self, tmp_path: Path, prompts: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(tmp_path, job(tiny_model_folder, prompts, tmp_path / "none" / "out.jsonl")) == 1
        assert "writing the answers" in capsys.readouterr().err
