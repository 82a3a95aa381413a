"""Completions from a vLLM server that a person started, in place of the engine's own sampler.

Owns the conversation with the server: the policy's adapter is saved into a folder that both can read, loaded under a
new name (`/v1/load_lora_adapter`) and the one before unloaded, so that what the server has cached under old weights
never serves new ones. Then each prompt is one request to `/v1/completions` with token ids, its own seed and our stop
ids. Every setting that vLLM would else take from the model's generation_config.json is sent.

What is different from our sampler: a seed repeats its draw on the same server only as far as vLLM's batches do, so a
resumed run is not bit-equal; log-probs are vLLM's, by default at temperature 1 whatever the temperature of the draw.
Losses do not depend on them: old log-probs come from the training forward. Tested against a fake server; it has not run
against vLLM yet.

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora --max-lora-rank 16
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.model.adapters import RoleModel
from engine.model.sampler import Completion
from engine.model.saving import save_weights

API_KEY = "VLLM_API_KEY"
"""The environment variable that holds the server's key, where it asks for one."""
REQUESTS_AT_ONCE = 128
PATIENCE_S = 600.0
"""For one answer."""
_START = (
    "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora --max-lora-rank R, correct "
    'train.sampler_url, or set train.sampler = "engine"'
)


class VllmSampler:
    """Asks a server; the policy's adapter is sent over whenever it has changed."""

    def __init__(
        self,
        roles: RoleModel,
        url: str,
        *,
        base_folder: Path,
        exchange: Path,
        name: str,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`exchange` is a folder that the server can read, too; `name` begins what adapters are called there."""
        self._roles = roles
        self._url = url.rstrip("/")
        self._base_folder = base_folder
        self._exchange = exchange
        self._names = (f"{name}-{secrets.token_hex(4)}-{number}" for number in count(1))
        self._loaded = ""
        self._patience_s = patience_s
        self._sent: int | None = None

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        stop_ids: frozenset[int],
        pad_id: int,
        seeds: Sequence[int],
    ) -> list[Completion]:
        """One completion a prompt, in their order. Raises ModelError, naming what the server said."""
        if not prompts:
            return []
        self._send_adapter()
        shared = {
            "model": self._loaded, "max_tokens": max_new_tokens, "temperature": temperature, "top_p": 1.0, "top_k": 0,
            "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "n": 1,
            "stop_token_ids": sorted(stop_ids), "ignore_eos": True, "logprobs": 0, "return_token_ids": True,
            "skip_special_tokens": False,
        }  # fmt: skip
        requests = [{**shared, "prompt": list(p), "seed": seed} for p, seed in zip(prompts, seeds, strict=True)]
        with ThreadPoolExecutor(min(REQUESTS_AT_ONCE, len(requests))) as pool:
            answers = list(pool.map(lambda request: self._post("/v1/completions", request), requests))
        return [self._completion(answer, stop_ids) for answer in answers]

    def _send_adapter(self) -> None:
        """Save the policy's adapter and let the server load it, where it changed since the last time."""
        # Each in-place change of a tensor counts its version up.
        version = sum(parameter._version for parameter in self._roles.trainable.values())
        if version == self._sent:
            return
        shutil.rmtree(self._exchange, ignore_errors=True)
        self._exchange.mkdir(parents=True, mode=0o700)
        save_weights(self._roles, self._exchange, base_folder=self._base_folder)
        name = next(self._names)
        self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(self._exchange.resolve())})
        before, self._loaded, self._sent = self._loaded, name, version
        if before:
            self._post("/v1/unload_lora_adapter", {"lora_name": before})

    def _completion(self, answer: Any, stop_ids: frozenset[int]) -> Completion:
        try:
            (choice,) = answer["choices"]
            ids = [int(token) for token in choice["token_ids"]]
            log_probs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self._url}: an answer without token ids and their log-probs ({type(error).__name__}: {error}): "
                "vLLM gives them from version 0.10.2 on; update it"
            ) from error
        stopped = choice.get("finish_reason") == "stop"
        if not ids or len(ids) != len(log_probs) or stopped != (ids[-1] in stop_ids):
            raise ModelError(
                f"{self._url}: an answer of {len(ids)} tokens with {len(log_probs)} log-probs that ended by "
                f"{choice.get('finish_reason')!r}, its last token {ids[-1] if ids else 'missing'}: expected as many of "
                "both, and a stop token exactly where it stopped. Does the server have the run's tokenizer?"
            )
        return Completion(ids, stopped, log_probs)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """The server's answer, read as JSON where it is some."""
        headers = {"Content-Type": "application/json"}
        if os.environ.get(API_KEY):
            headers["Authorization"] = f"Bearer {os.environ[API_KEY]}"
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self._patience_s) as response:
                text = response.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            said = " ".join(error.read().decode("utf-8", "replace").split())[:300]
            raise ModelError(f"{self._url}{path}: the vLLM server refused ({error.code}: {said}): {_START}") from error
        except (OSError, ValueError) as error:
            raise ModelError(f"{self._url}{path}: no answer from a vLLM server ({error}): {_START}") from error
        try:
            return json.loads(text)
        except ValueError:
            return text
