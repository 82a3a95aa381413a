"""The vLLM client against a fake server that speaks its protocol: what is sent, what comes back, what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.errors import ModelError
from engine.methods.vllm_sampler import API_KEY, VllmSampler
from engine.model.adapters import POLICY, RoleModel, build_roles

STOP = 7
PROMPTS = [[5, 6], [8, 9, 10], [11]]
ASKED: dict[str, Any] = {
    "max_new_tokens": 4, "temperature": 0.7, "stop_ids": frozenset({STOP}), "pad_id": 3, "seeds": [21, 22, 23],
}  # fmt: skip


class FakeVllm(ThreadingHTTPServer):
    """Answers a prompt with its last token, its length, and a stop where its first token is odd."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.adapters: list[dict[str, torch.Tensor]] = []
        self.refusal: tuple[int, str] | None = None
        self.changed: dict[str, Any] = {}
        """Fields of every choice that are other than they should be."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sent(self, path: str) -> list[dict[str, Any]]:
        """Bodies sent to `path`."""
        return [body for where, body in self.requests if where == path]


class _Handler(BaseHTTPRequestHandler):
    server: FakeVllm

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        self.server.keys.append(self.headers["Authorization"])
        if self.server.refusal is not None:
            self._answer(*self.server.refusal)
        elif self.path == "/v1/unload_lora_adapter":
            self._answer(200, "Success: LoRA adapter removed successfully.")
        elif self.path == "/v1/load_lora_adapter":
            self.server.adapters.append(load_file(Path(body["lora_path"]) / "adapter_model.safetensors"))
            self._answer(200, "Success: LoRA adapter added successfully.")
        else:
            prompt = body["prompt"]
            stopped = prompt[0] % 2 == 1
            ids = [prompt[-1], len(prompt)] + ([STOP] if stopped else [40, 41])
            choice = {
                "index": 0, "text": "", "token_ids": ids, "finish_reason": "stop" if stopped else "length",
                "logprobs": {"token_logprobs": [-0.5 * (i + 1) for i in range(len(ids))]},
            }  # fmt: skip
            self._answer(200, json.dumps({"choices": [{**choice, **self.server.changed}]}))

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FakeVllm]:
    fake = FakeVllm()
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.shutdown()
    thread.join()
    fake.server_close()


@pytest.fixture
def roles(tiny_model: Any) -> RoleModel:
    return build_roles(tiny_model, kind="lora", trained=POLICY, start_adapter=None, rank=4)


@pytest.fixture
def sampler(server: FakeVllm, roles: RoleModel, tiny_model_folder: Path, tmp_path: Path) -> VllmSampler:
    return VllmSampler(
        roles, server.url + "/", base_folder=tiny_model_folder, exchange=tmp_path / "sampler", name="run-policy",
        patience_s=20,
    )  # fmt: skip


def test_each_prompt_is_a_request_with_its_own_seed(sampler: VllmSampler, server: FakeVllm) -> None:
    found = sampler.complete(PROMPTS, **ASKED)
    assert [(c.ids, c.stopped) for c in found] == [
        ([6, 2, STOP], True),
        ([10, 3, 40, 41], False),
        ([11, 1, STOP], True),
    ]
    assert found[0].log_probs == [-0.5, -1.0, -1.5]
    sent = {tuple(body["prompt"]): body for body in server.sent("/v1/completions")}
    assert [sent[tuple(p)]["seed"] for p in PROMPTS] == [21, 22, 23]
    one = sent[5, 6]
    (loaded,) = server.sent("/v1/load_lora_adapter")
    assert (one["model"], one["max_tokens"], one["temperature"]) == (loaded["lora_name"], 4, 0.7)
    assert one["stop_token_ids"] == [STOP]
    # Nothing is left to generation_config.json of the model.
    assert (one["top_p"], one["top_k"], one["min_p"], one["repetition_penalty"], one["ignore_eos"]) == (
        1,
        0,
        0,
        1,
        True,
    )
    assert server.keys == [None] * 4
    assert sampler.complete([], **{**ASKED, "seeds": []}) == []


def test_the_adapter_goes_over_when_it_has_changed_and_only_then(
    sampler: VllmSampler, server: FakeVllm, roles: RoleModel, tmp_path: Path
) -> None:
    sampler.complete(PROMPTS, **ASKED)
    sampler.complete(PROMPTS, **ASKED)
    (first,) = server.sent("/v1/load_lora_adapter")
    assert first["lora_name"].startswith("run-policy-")
    assert first["lora_path"] == str((tmp_path / "sampler").resolve())
    assert [path for path, _ in server.requests].index("/v1/load_lora_adapter") == 0
    name, parameter = next((n, p) for n, p in roles.trainable.items() if "lora_B" in n)
    with torch.no_grad():
        parameter.add_(1.0)
    sampler.complete(PROMPTS, **ASKED)
    # Under a name of its own, so that nothing cached under the old weights serves the new; the old one goes.
    second = server.sent("/v1/load_lora_adapter")[1]["lora_name"]
    assert second != first["lora_name"]
    assert server.sent("/v1/unload_lora_adapter") == [{"lora_name": first["lora_name"]}]
    assert server.sent("/v1/completions")[-1]["model"] == second
    before, after = server.adapters
    key = next(k for k in after if k.endswith(name.replace(f".{POLICY}.", ".")))
    assert torch.equal(after[key], parameter)
    assert torch.equal(before[key], torch.zeros_like(parameter))


def test_the_key_is_that_of_the_environment(
    sampler: VllmSampler, server: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(API_KEY, "secret")
    sampler.complete(PROMPTS[:1], **{**ASKED, "seeds": [1]})
    assert set(server.keys) == {"Bearer secret"}


def test_what_the_server_refuses_is_told(sampler: VllmSampler, server: FakeVllm) -> None:
    server.refusal = (400, '{"error": "LoRA rank 16 is greater than max_lora_rank 8"}')
    with pytest.raises(
        ModelError, match=r"load_lora_adapter: the vLLM server refused \(400: .*max_lora_rank 8.*--enable"
    ):
        sampler.complete(PROMPTS, **ASKED)
    server.refusal = None
    sampler.complete(PROMPTS, **ASKED)
    assert len(server.adapters) == 1, "a refused adapter is sent again"


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"token_ids": None}, "update it"),
        ({"logprobs": None}, "update it"),
        ({"token_ids": []}, "0 tokens with"),
        ({"finish_reason": "stop", "token_ids": [1, 2, 3], "logprobs": {"token_logprobs": [0, 0, 0]}}, "tokenizer"),
        ({"finish_reason": "length", "token_ids": [1, STOP], "logprobs": {"token_logprobs": [0, 0]}}, "tokenizer"),
    ],
)
def test_an_answer_that_cannot_be_trained_on(
    sampler: VllmSampler, server: FakeVllm, changed: dict[str, Any], match: str
) -> None:
    server.changed = changed
    with pytest.raises(ModelError, match=match):
        sampler.complete(PROMPTS, **ASKED)


def test_no_server(roles: RoleModel, tiny_model_folder: Path, tmp_path: Path) -> None:
    gone = FakeVllm()
    gone.server_close()
    sampler = VllmSampler(roles, gone.url, base_folder=tiny_model_folder, exchange=tmp_path / "x", name="n")
    with pytest.raises(ModelError, match=r'no answer from a vLLM server .*train\.sampler = "engine"'):
        sampler.complete(PROMPTS, **ASKED)
