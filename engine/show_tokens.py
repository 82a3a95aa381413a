"""The program that shows rows in tokens: a line of JSON in, a line of JSON out, until its input ends.

Owns one process in which strangers' chat templates and tokenizer files are read, apart from whoever looks at them. A
request is {"folder", "adapter", "row", "max_length", "train_on"}; an answer is `row_tokens` as JSON, or {"error"}.
Torch-free: the tokenizer is read with `tokenizers` alone.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from engine.data.chat import ChatTokenizer
from engine.data.reading import BrokenRow
from engine.data.row_tokens import row_tokens
from engine.errors import EngineError


def answer_to(request: dict[str, Any], tokenizers: dict[tuple[str, str], ChatTokenizer]) -> dict[str, Any]:
    """The answer to one request; `tokenizers` keeps those that were read."""
    key = (request["folder"], request["adapter"])
    try:
        if key not in tokenizers:
            tokenizers[key] = ChatTokenizer.of_model(Path(key[0]), Path(key[1]) if key[1] else None)
        found = row_tokens(request["row"], tokenizers[key], request["max_length"], request["train_on"])
    except (EngineError, BrokenRow) as error:
        return {"error": str(error)}
    return asdict(found)


def main() -> int:
    """Answer requests until there are no more."""
    tokenizers: dict[tuple[str, str], ChatTokenizer] = {}
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(orjson.dumps(answer_to(orjson.loads(line), tokenizers)) + b"\n")
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
