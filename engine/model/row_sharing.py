"""The leak test: may documents share a row of this model? Asked of its real layers, not of a list of names.

Two short documents go through the loaded model in one packed row. They may share it where
- no gradient, exactly 0, reaches the input of one document from the output of the other, in either direction (this sees
  a path of any size, in any precision: state-space and convolution layers, biases by position in the row);
- exchanging the tokens of one leaves the other as it was: bit-equal, or within rounding where a mixture of experts
  multiplies other matrices together (this sees what has no gradient);
- log-probs equal those of the model's own forward pass on each document alone, also with every attention window made
  shorter than the documents, and also where two documents share their beginning (this sees an argument of attention,
  a mask or a head that the packed pass leaves out).
Where any of it fails, each document gets a row of its own (`own_rows`), and the model's own forward pass is asked once
more: a model that differs even there is refused, since its loss would be wrong.

The answer holds for a class (everything in config.json), the versions of the libraries, precision and device; it is
kept in the user's cache, so a class is asked once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch

from engine.data.packing import Document, PackedBatch, pack
from engine.errors import ModelError
from engine.model.attention import attention_mode, per_sample
from engine.model.log_probs import hidden_states, token_scores
from engine.model.own_rows import hidden_states_in_own_rows
from engine.run.durable_files import write_atomically
from engine.run.user_cache import user_cache_folder

LENGTHS = (9, 7)
"""Tokens of the two documents; unlike, so that no kernel call holds both."""
SHARED = 4
"""Tokens of its beginning that a third one shares with the second, where sharing is looked at."""
SHORT_WINDOW = 3
_WINDOWS = ("sliding_window", "attention_chunk_size")
_SCHEMA = 1


@dataclass(frozen=True)
class RowSharing:
    """Whether documents of a model may lie in one row."""

    shared: bool
    why: str = ""
    """What was seen where they may not; empty where they may."""


def row_sharing(model: Any, cache_folder: Path | None = None) -> RowSharing:
    """The answer for a loaded model, from the cache or by asking it. Leaves the model as it was.

    Raises ModelError where the model's own log-probs cannot be had from its hidden states and its head.
    """

    def answer() -> dict[str, Any]:
        found = ask(model)
        return {"shared": found.shared, "why": found.why}

    known = kept_answer("row-sharing", class_key(model), answer, cache_folder)
    return RowSharing(bool(known["shared"]), str(known["why"]))


def kept_answer(
    question: str, key: str, find: Callable[[], dict[str, Any]], cache_folder: Path | None
) -> dict[str, Any]:
    """What is remembered under `key`, else what `find` says, remembered from now on."""
    entry = (cache_folder or user_cache_folder()) / question / f"{key}.json"
    try:
        known = orjson.loads(entry.read_bytes())
        if isinstance(known, dict) and known.get("schema") == _SCHEMA:
            return known
    except (OSError, ValueError):
        pass  # not asked yet, or torn
    found = {"schema": _SCHEMA, **find()}
    try:
        entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(entry, orjson.dumps(found), durable=False)
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else
    return found


def ask(model: Any) -> RowSharing:
    """Run the test. Raises ModelError as `row_sharing` does."""
    training = model.training
    model.eval()
    try:
        why = _why_not(model)
        if why:
            _check_own_rows(model, why)
        return RowSharing(not why, why)
    finally:
        model.train(training)


def _why_not(model: Any) -> str:
    """What speaks against sharing a row, or nothing."""
    try:
        if leak := _gradient_leak(model):
            return leak
        with torch.no_grad():
            if leak := _exchange_leak(model):
                return leak
            if away := _away_from_its_own(model, hidden_states):
                return f"packed log-probs differ from the model's own by {away:.2g} nats"
            with _short_windows(model) as shortened:
                if shortened and (away := _away_from_its_own(model, hidden_states)):
                    return f"beyond its attention window, packed log-probs differ from its own by {away:.2g} nats"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a stranger's layers raise when they are handed a layout
        return f"its layers cannot take packed documents ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
    return ""


def _check_own_rows(model: Any, why: str) -> None:
    try:
        with torch.no_grad():
            away = _away_from_its_own(model, hidden_states_in_own_rows)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # as above
        raise ModelError(
            f"{type(model).__name__} cannot be trained here: {why}, and its decoder gives no hidden states of a "
            f"document alone ({type(error).__name__}: {' '.join(str(error).split())[:160]}). Use another architecture"
        ) from error
    if away:
        raise ModelError(
            f"{type(model).__name__} cannot be trained here: its log-probs are not those of its hidden states and its "
            f"head (they differ by {away:.2g} nats), so every loss would be wrong. Use another architecture"
        )


def _two_documents(model: Any, changed: int = 0) -> list[Document]:
    """Two documents of known ids; with `changed` 1 or 2 that one has other tokens."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    documents = []
    for place, length in enumerate(LENGTHS, start=1):
        shift = 31 if place == changed else 0
        ids = [(place * 101 + t * 17 + shift) % max(2, vocabulary - 1) for t in range(length)]
        documents.append(Document(ids, [True] * length))
    return documents


def _packed(model: Any, documents: list[Document]) -> PackedBatch:
    return pack(documents, model.get_input_embeddings().weight.device)


def _rows(batch: PackedBatch) -> list[slice]:
    """The rows of each document."""
    return [slice(span.start, span.start + span.length) for span in batch.spans]


def _gradient_leak(model: Any) -> str:
    """Whether the output of one document depends on the input of the other."""
    batch = _packed(model, _two_documents(model))
    kept: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    hook = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad():
            hidden_TH = hidden_states(model, batch)
            # Random weights: a plain sum has no gradient behind a normalisation.
            weights = torch.randn(hidden_TH.shape, generator=torch.Generator().manual_seed(1)).to(hidden_TH)
            rows = _rows(batch)
            for read, other in (rows, rows[::-1]):
                total = (hidden_TH[read] * weights[read]).sum()
                gradient = torch.autograd.grad(total, kept[0], retain_graph=True)[0].flatten(0, -2)
                if bool(gradient[other].ne(0).any()):
                    share = float(gradient[other].float().norm() / gradient[read].float().norm())
                    return f"a document feels another in its row ({share:.2g} of what it feels of itself)"
    finally:
        hook.remove()
    return ""


def _exchange_leak(model: Any) -> str:
    """Whether one document's hidden states change when the other's tokens are exchanged."""
    batch = _packed(model, _two_documents(model))
    before = hidden_states(model, batch)
    for changed, kept in zip((1, 2), _rows(batch)[::-1], strict=True):
        after = hidden_states(model, _packed(model, _two_documents(model, changed)))
        if torch.equal(before[kept], after[kept]):
            continue
        moved = float((before[kept] - after[kept]).abs().max() / before[kept].abs().max())
        if not moved <= 64 * torch.finfo(before.dtype).eps:
            return f"a document changes by {moved:.2g} of its size when another in its row has other tokens"
    return ""


def _away_from_its_own(model: Any, hidden_of: Callable[[Any, PackedBatch], torch.Tensor]) -> float:
    """The largest difference to the model's own log-probs, in nats; 0.0 within rounding."""
    first, second = _two_documents(model)
    third = Document([*second.ids[:SHARED], *first.ids[:SHARED]], [True] * 2 * SHARED, SHARED)
    documents = [first, second, third]
    batch = _packed(model, documents)
    ours_N = token_scores(model, hidden_of(model, batch), batch).log_probs_N
    own = []
    with attention_mode(model, per_sample(model)):
        for document in documents:
            ids = torch.tensor(list(document.ids), device=ours_N.device)
            log_probs_LV = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0].float().log_softmax(-1)
            own.append(log_probs_LV[:-1].gather(-1, ids[1:].unsqueeze(-1)).squeeze(-1))
    own_N = torch.cat(own)
    away = float((ours_N - own_N).abs().max())
    # Log-probs of some nats; bf16 keeps 3 digits of the logits behind them, fp32 with its long sums 5.
    rounding = 1e-4 if model.dtype == torch.float32 else 4e-2
    return 0.0 if away <= rounding * max(1.0, float(own_N.abs().max())) else away


@contextmanager
def _short_windows(model: Any) -> Iterator[bool]:
    """Every attention window made shorter than the documents; whether there was one. Put back afterwards."""
    holders = [model.config.get_text_config(), *model.modules()]
    holders += [module.config for module in model.modules() if hasattr(module, "config")]
    changed: list[tuple[Any, str, int]] = []
    try:
        for holder in {id(one): one for one in holders}.values():
            for name in _WINDOWS:
                value = getattr(holder, name, None)
                if isinstance(value, int) and not isinstance(value, bool) and value > SHORT_WINDOW:
                    setattr(holder, name, SHORT_WINDOW)
                    changed.append((holder, name, value))
        yield bool(changed)
    finally:
        for holder, name, value in changed:
            setattr(holder, name, value)


def class_key(model: Any) -> str:
    """Everything on which the answer depends; where the model lies and who saved it is not among it."""
    import transformers

    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    weight = model.get_input_embeddings().weight
    asked = (
        _SCHEMA, type(model).__name__, transformers.__version__, torch.__version__,
        str(model.dtype), weight.device.type,
        bool(getattr(model, "is_loaded_in_4bit", False)),
    )  # fmt: skip
    text = orjson.dumps([asked, config], default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(text).hexdigest()[:32]
