"""The one chat renderer: conversations to token ids and to masks of what is trained.

Owns the tokenizer of a model folder, read with `tokenizers` alone, and its chat template, rendered in a sandbox.

Invariants:
- The ids of an ordinary conversation are those of transformers' `apply_chat_template(tokenize=True)`.
- Text of a special token inside a message's content stays text (see guarded_encoding.py). Plain-string prompts and
  texts are the exception: nothing surrounds them, so special tokens written in them are read as such.
- A mask is proved, never guessed: the rendering of a conversation's beginning must be the beginning of its rendering.
- Prompt ids depend on the prompt alone, so both answers of a pair follow the same ids.
- A trained turn ends with its end-of-turn token. What a template writes behind it (a newline in ChatML) is no answer
  of the model: it is left out of a completion, so that the last token is the same in data and in samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer

from engine.data.chat_template import TEMPLATE_DATE, ChatTemplate, Message, check_messages, map_contents
from engine.data.guarded_encoding import GuardedEncoding
from engine.data.tokenizer_files import TokenizerFiles
from engine.errors import DataError, ModelError

Prompt = str | Sequence[Message]
"""Messages, or a plain string to which no template is applied."""


@dataclass(frozen=True)
class Tokens:
    """One tokenised text."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    """Same length as `ids`: True where the token is one that the model should produce."""


class ChatTokenizer:
    """A model's tokenizer with its chat template and the tokens that end a turn."""

    def __init__(self, tokenizer: Tokenizer, files: TokenizerFiles, chat_template: str | None) -> None:
        """Use `from_folder`. `chat_template` is the source in force, None for a model without one."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._files = files
        self._template = None if chat_template is None else ChatTemplate(chat_template, files.special_texts, files.name)
        self._added = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items()}
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        """One more than the largest id."""
        self._check_vocabulary()
        turn_end = self._end_of_turn()
        self.eos_id = self._eos(turn_end)
        """The token that ends a text."""
        self.end_of_turn_id = self.eos_id if turn_end is None else turn_end
        """The token that ends an assistant turn in the template; the end-of-text token where it writes none."""
        self.bos_id = self._id_of("bos_token")
        pad_id = self._id_of("pad_token")
        self.pad_id = self.eos_id if pad_id is None else pad_id
        """Fills unused slots while sampling. No mask is ever derived from it, so it may equal `end_of_turn_id`."""
        self.stop_ids = frozenset({self.eos_id, self.end_of_turn_id, *files.stop_ids})
        """Sampling ends at any of these."""
        self._guard = GuardedEncoding(tokenizer, self._guarded_texts())
        self.notes = tuple(self._remarks(turn_end, pad_id))
        """Sentences about this tokenizer that a person may want to know."""

    @classmethod
    def from_folder(cls, folder: Path | str, chat_template: str | None = None) -> ChatTokenizer:
        """Read a model folder's tokenizer; `chat_template` replaces the folder's own. Raises ModelError."""
        files = TokenizerFiles.read(Path(folder))
        try:
            tokenizer = Tokenizer.from_file(str(files.tokenizer_json))
        except Exception as error:  # tokenizers raises bare Exception for every fault of a file
            raise ModelError(
                f"{files.tokenizer_json}: not a tokenizer ({error}): copy the file from the model again"
            ) from error
        return cls(tokenizer, files, files.chat_template if chat_template is None else chat_template)

    @property
    def chat_template(self) -> str | None:
        """The template's source; None where messages cannot be rendered."""
        return None if self._template is None else self._template.source

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that decides which ids a conversation gets."""
        settings = [self.chat_template, self.eos_id, self.end_of_turn_id, self.bos_id, sorted(self.stop_ids)]
        digest = hashlib.sha256(json.dumps(settings).encode())
        digest.update(hashlib.sha256(self._tokenizer.to_str().encode()).digest())
        return digest.hexdigest()

    # Text and ids

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens written in it are read as such, none is added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_untrusted(self, text: str) -> list[int]:
        """Ids of a text in which the text of a special token is ordinary text."""
        return self._encode(self._guard.mark(text))

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of some ids; `skip_special` leaves special tokens out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        return text

    # Conversations

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The text of a conversation, as the template writes it."""
        return self._guard.unmark(self._render(messages, add_generation_prompt))

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt, up to where the model's answer begins."""
        if isinstance(prompt, str):
            return [*self._text_prefix, *self.encode(prompt)]
        return self._encode(self._render(prompt, True))

    def completion_ids(self, prompt: Prompt, completion: Prompt) -> list[int]:
        """Ids that follow `prompt_ids(prompt)`, the end-of-turn token (or end of text, for strings) included.

        Tokenised together with the prompt where that leaves the prompt's ids alone, as transformers does; else, where a
        merge would reach across, on its own. Raises DataError where the template rewrites the prompt.
        """
        if isinstance(prompt, str):
            if not isinstance(completion, str):
                raise DataError("a plain-string prompt needs a plain-string completion, not messages")
            return [*self._pieces(prompt + completion, [len(prompt)])[1], self.eos_id]
        answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        check_messages(answer, "completion")
        if any(message["role"] != "assistant" for message in answer):
            raise DataError("a completion holds a turn that is not the assistant's: give such rows as `messages`")
        before = self._render(prompt, True)
        whole = self._render([*prompt, *answer], False)
        if not whole.startswith(before):
            raise DataError(self._no_prefix(len(prompt), "the prompt"))
        return self._without_tail(self._pieces(whole, [len(before)])[1])

    def conversation(self, messages: Sequence[Message]) -> Tokens:
        """Ids of a whole conversation, with every assistant turn trained.

        Each mask is proved: the rendering up to a turn, and up to its end, must both begin the whole rendering.
        """
        check_messages(messages, "messages")
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise DataError("a conversation without an assistant turn has nothing to train on")
        whole = self._render(messages[: turns[-1] + 1], False)
        cuts: list[int] = []
        for i in turns:
            before, after = self._render(messages[:i], True), self._render(messages[: i + 1], False)
            if not (after.startswith(before) and whole.startswith(after)):
                raise DataError(self._no_prefix(i + 1, f"the conversation up to turn {i + 1}"))
            cuts += [len(before), len(after)]
        ids: list[int] = []
        trained: list[bool] = []
        for number, piece in enumerate(self._pieces(whole, cuts)):
            kept = len(self._without_tail(piece)) if number % 2 == 1 else 0
            ids += piece
            trained += [True] * kept + [False] * (len(piece) - kept)
        end = max(i for i, on in enumerate(trained) if on) + 1 if any(trained) else len(ids)
        return Tokens(tuple(ids[:end]), tuple(trained[:end]))

    def whole_text(self, text: str) -> Tokens:
        """Ids of a plain text, all of it trained but what the tokenizer puts before it, with the end-of-text token."""
        ids = [*self.encode(text), self.eos_id]
        before = self._text_prefix
        return Tokens((*before, *ids), (False,) * len(before) + (True,) * len(ids))

    # How it is done

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """A rendering in which forged special tokens are marks."""
        check_messages(messages, "prompt")
        if self._template is None:
            raise ModelError(
                f"{self._files.folder}: the model has no chat template, so messages cannot be rendered: use an "
                "instruction-tuned model, put a chat_template.jinja into its folder, or give plain-string prompts"
            )
        for message in messages:
            self._refuse_forgery_elsewhere(message)
        marked = map_contents(messages, self._guard.mark)
        return self._template.render(marked, add_generation_prompt=add_generation_prompt)

    def _refuse_forgery_elsewhere(self, message: Message) -> None:
        """Only contents are guarded; a special token in any other key of a message is refused."""
        others = {key: value for key, value in message.items() if key not in ("role", "content")}
        if others and self._guard.forges(json.dumps(others, ensure_ascii=False, default=str)):
            raise DataError(f"a message's {', '.join(others)} holds the text of a special token: remove it")

    def _encode(self, marked: str) -> list[int]:
        return self._guard.encode(marked) if self._guard.is_marked(marked) else self.encode(marked)

    def _pieces(self, whole: str, cuts: Sequence[int]) -> list[list[int]]:
        """The ids of `whole`, cut at ascending character positions.

        Where every beginning of the text up to a cut has ids that begin the ids of the whole, those are used: no token
        straddles a cut. Otherwise each stretch is encoded on its own.
        """
        all_ids = self._encode(whole)
        places = [0]
        for cut in cuts:
            beginning = self._encode(whole[:cut])
            if all_ids[: len(beginning)] != beginning:
                bounds = [0, *cuts, len(whole)]
                return [self._encode(whole[a:b]) for a, b in pairwise(bounds)]
            places.append(len(beginning))
        places.append(len(all_ids))
        return [all_ids[a:b] for a, b in pairwise(places)]

    def _without_tail(self, ids: list[int]) -> list[int]:
        """`ids` up to the last end-of-turn token, where only white space follows it."""
        for place in range(len(ids) - 1, -1, -1):
            if ids[place] == self.end_of_turn_id:
                return ids[: place + 1] if not self.decode(ids[place + 1 :], skip_special=False).strip() else ids
        return ids

    def _no_prefix(self, turns: int, what: str) -> str:
        return (
            f"the chat template of {self._files.name} writes {what} (of {turns} turns) differently once the answer "
            "follows, so what the model should produce cannot be told from what it is given. Use a training template "
            "for this family (chat_template.jinja), or rows of one prompt and one completion"
        )

    # What is read once

    @cached_property
    def _text_prefix(self) -> tuple[int, ...]:
        """Ids that the tokenizer puts before every plain text: the beginning-of-text token, or nothing."""
        bare = self.encode("a")
        dressed: list[int] = self._tokenizer.encode("a", add_special_tokens=True).ids
        for start in range(len(dressed) - len(bare) + 1):
            if dressed[start : start + len(bare)] == bare:
                return tuple(dressed[:start])
        return ()

    def _id_of(self, name: str) -> int | None:
        text = self._files.special_texts.get(name)
        if text is None:
            return self._files.special_ids.get(name)
        token_id: int | None = self._tokenizer.token_to_id(text)
        if token_id is None and name == "eos_token":
            raise ModelError(
                f"{self._files.folder}/tokenizer_config.json: {name} is {text!r}, which tokenizer.json does not have: "
                "correct the name, or copy both files from the model again"
            )
        return token_id

    def _eos(self, turn_end: int | None) -> int:
        for token_id in (self._id_of("eos_token"), turn_end):
            if token_id is not None:
                return token_id
        raise ModelError(
            f"{self._files.folder}: no end-of-text token: name it as eos_token in tokenizer_config.json, or as "
            "eos_token_id in generation_config.json"
        )

    def _end_of_turn(self) -> int | None:
        """The first special token that the template writes behind an assistant's words."""
        if self._template is None:
            return None
        words = "wordsofanassistant"
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": words}]
        try:
            _, found, suffix = self._template.render(talk, add_generation_prompt=False).rpartition(words)
        except DataError:
            return None
        special = set(self._added.values())
        return next((i for i in self.encode(suffix) if i in special), None) if found else None

    def _guarded_texts(self) -> dict[str, int]:
        """Every special token, and every added token that ends a turn or a text even if it is not flagged special."""
        decoder = self._tokenizer.get_added_tokens_decoder()
        ends = {*self.stop_ids, self.pad_id, self.bos_id}
        return {token.content: i for i, token in decoder.items() if token.special or i in ends}

    def _check_vocabulary(self) -> None:
        limit = self._files.embedding_rows
        if limit is not None and self.vocab_size > limit:
            raise ModelError(
                f"{self._files.folder}: tokenizer.json has ids up to {self.vocab_size - 1}, but config.json says that "
                f"the model's embedding has {limit} rows: the tokenizer is another model's, or the embedding was not "
                "resized after tokens were added"
            )

    def _remarks(self, turn_end: int | None, pad_id: int | None) -> Iterable[str]:
        if self._template is None:
            yield "The model has no chat template: only plain-string prompts and texts can be used."
        elif turn_end is None:
            yield "The chat template ends an assistant turn without a special token: only the end of text stops it."
        if pad_id is not None and pad_id == self.end_of_turn_id:
            yield "The padding token is the end-of-turn token. That does no harm here: no mask is made from it."
        if self._template is not None and self._template.tells_the_date:
            yield f"The chat template writes the current date; here it always writes {TEMPLATE_DATE:%d %B %Y}."
