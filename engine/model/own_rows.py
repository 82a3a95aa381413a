"""Hidden states with a row of its own for each document: for decoders whose tokens mix by more than attention.

State-space and convolution layers carry something from one token to the next and know nothing of documents, so two
documents in one row would leak. Documents of equal length are the rows of one batch; nothing is padded here either.
Shapes: T tokens of the packed batch, n documents of one length L, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.data.packing import PackedBatch
from engine.model.attention import DocumentLayout, attention_mode, per_sample


def hidden_states_in_own_rows(model: Any, batch: PackedBatch) -> torch.Tensor:
    """Final hidden states (T, H) in the order of the packed batch, by transformers' own attention.

    A beginning that documents share goes through the model once for each of them.
    """
    if any(span.shared for span in batch.spans):
        apart, back_T = batch.apart()
        return hidden_states_in_own_rows(model, apart).index_select(0, back_T)
    blocks = DocumentLayout.of(batch.spans, batch.ids_T.device).blocks
    sizes = [len(block.documents) * block.length for block in blocks]
    decoder = model.get_decoder()
    pieces = []
    with attention_mode(model, per_sample(model)):
        for block, ids in zip(blocks, batch.ids_T.split(sizes), strict=True):
            output = decoder(input_ids=ids.view(-1, block.length), use_cache=False)
            pieces.append(output.last_hidden_state.flatten(0, 1))
    return torch.cat(pieces)
