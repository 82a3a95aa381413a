"""What is trained of a conversation: chosen assistant turns, with masks that are proved and never guessed.

Owns the order of proofs:

1. The model's own template, where the rendering of what precedes a turn, and of it, both begin that of the whole.
2. Some templates rewrite earlier turns once later ones follow: they drop earlier thinking, or move the system's words.
   Where the family has a training template (see training_templates/) that keeps them, it writes the whole, provided
   that it writes each trained turn to the byte as the model's own template does behind its own prompt.
3. Else the conversation becomes one example for each trained turn: the prompt as the model would be shown it at that
   moment, and the turn as its answer.

Where not even that can be told from the prompt, the row is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.chat import ChatTokenizer
from engine.data.chat_messages import Message, Tools
from engine.data.tokens import Tokens
from engine.errors import DataError, PrefixRewritten

WHOLE = "conversation in one rendering"
BY_FAMILY = "conversation by the training template of "
SPLIT = "conversation split into one example a turn"


def assistant_turns(messages: Sequence[Message]) -> list[int]:
    """Indices of the assistant's turns."""
    return [i for i, message in enumerate(messages) if message["role"] == "assistant"]


def masked_turns(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    turns: Sequence[int],
    tools: Tools | None = None,
    *,
    split: bool = False,
) -> tuple[tuple[Tokens, ...], str]:
    """Sequences in which exactly the turns at the ascending indices `turns` are trained, and how that was proved.

    One sequence, or one for each turn; `split` passes over training templates. Raises DataError where the template
    refuses the conversation or no mask can be proved.
    """
    try:
        return (tokenizer.conversation(messages, turns, tools),), WHOLE
    except PrefixRewritten:
        pass
    if not split and tokenizer.training_twin is not None:
        family, twin = tokenizer.training_twin
        try:
            if all(_written_alike(tokenizer, twin, messages, turn, tools) for turn in turns):
                return (twin.conversation(messages, turns, tools),), BY_FAMILY + family
        except DataError:
            pass
    return tuple(_alone(tokenizer, messages, turn, tools) for turn in turns), SPLIT


def _written_alike(
    tokenizer: ChatTokenizer, twin: ChatTokenizer, messages: Sequence[Message], turn: int, tools: Tools | None
) -> bool:
    """Whether two templates write a turn the same, each behind the prompt as it writes that."""
    before, answer = messages[:turn], messages[turn]
    return tokenizer.answer_text(before, answer, tools) == twin.answer_text(before, answer, tools)


def _alone(tokenizer: ChatTokenizer, messages: Sequence[Message], turn: int, tools: Tools | None) -> Tokens:
    """One turn behind the prompt that the model would be given for it."""
    before = messages[:turn]
    answer = tokenizer.completion_ids(before, [messages[turn]], tools)
    return Tokens.answered(tokenizer.prompt_ids(before, tools), answer)
