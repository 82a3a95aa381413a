"""The one chat renderer: conversations to token ids and to masks of what is trained.

Owns the tokenizer of a model folder, read with `tokenizers` alone, and its chat template, rendered in a sandbox.

Invariants:
- The ids of an ordinary conversation are those of transformers' `apply_chat_template(tokenize=True)`.
- Text of a special token inside a message or a tool's definition stays text (see guarded_encoding.py). Plain-string
  prompts and texts are the exception: nothing surrounds them, so special tokens written in them are read as such.
- A mask is proved, never guessed: the rendering of a conversation's beginning must be the beginning of its rendering.
- Prompt ids depend on the prompt alone, so both answers of a pair follow the same ids.
- A trained turn ends with its end-of-turn token. What a template writes behind it (a newline in ChatML) is no answer
  of the model: it is left out of a completion, so that the last token is the same in data and in samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from tokenizers import Tokenizer

from engine.data.chat_messages import Message, Tools, changed, check_messages, for_template
from engine.data.chat_template import TEMPLATE_DATE, ChatTemplate
from engine.data.guarded_encoding import GuardedEncoding
from engine.data.renderings import Renderings
from engine.data.special_tokens import SpecialTokens
from engine.data.stretches import Stretches
from engine.data.tokenizer_files import TokenizerFiles
from engine.data.tokenizer_saving import save_tokenizer
from engine.data.tokens import Tokens
from engine.data.training_templates import training_templates, write_alike
from engine.errors import ConfigError, DataError, ModelError, PrefixRewritten

Prompt = str | Sequence[Message]
"""Messages, or a plain string to which no template is applied."""

_QUESTION: Message = {"role": "user", "content": "a"}


class ChatTokenizer:
    """A model's tokenizer with its chat template and the tokens that end a turn."""

    def __init__(self, tokenizer: Tokenizer, files: TokenizerFiles, chat_template: str | None) -> None:
        """Use `from_folder`. `chat_template` is the source in force, None for a model without one."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._files = files
        self._chosen: dict[str, str] = {}
        self.renderings = Renderings()
        self._template = None if chat_template is None else ChatTemplate(chat_template, files.special_texts, files.name)
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        """One more than the largest id."""
        self._check_vocabulary()
        self.special = SpecialTokens.found(tokenizer, files, None if self._template is None else self._as_written)
        self._guard = GuardedEncoding(tokenizer, self._guarded_texts())
        self._stretches = Stretches(tokenizer)
        self.notes = tuple(self._remarks())
        """Sentences about this tokenizer that a person may want to know."""

    @classmethod
    def from_folder(cls, folder: Path | str, chat_template: str | None = None) -> ChatTokenizer:
        """Read a model folder's tokenizer; `chat_template` replaces the folder's own. Raises ModelError."""
        files = TokenizerFiles.read(Path(folder))
        return cls.of_files(files, files.chat_template if chat_template is None else chat_template)

    @classmethod
    def of_model(cls, folder: Path | str, adapter: Path | str | None = None) -> ChatTokenizer:
        """The tokenizer of a base and an adapter over it, which was trained with its own. Raises ModelError."""
        files = TokenizerFiles.of_model(Path(folder), Path(adapter) if adapter else None)
        return cls.of_files(files, files.chat_template)

    @classmethod
    def of_files(
        cls, files: TokenizerFiles, chat_template: str | None, tokens: Mapping[str, str] = MappingProxyType({})
    ) -> ChatTokenizer:
        """The tokenizer of some files under a template, None for none.

        `tokens` are texts of special tokens by name, as `eos_token`, that replace what the files say. Raises
        ModelError, and ConfigError where one of them is no token of this tokenizer.
        """
        try:
            tokenizer = Tokenizer.from_file(str(files.tokenizer_json))
        except Exception as error:  # tokenizers raises bare Exception for every fault of a file
            raise ModelError(
                f"{files.tokenizer_json}: not a tokenizer ({error}): copy the file from the model again"
            ) from error
        for name, text in tokens.items():
            if tokenizer.token_to_id(text) is None:
                key = name.removesuffix("_token")
                raise ConfigError(f'[chat] {key} = "{text}": no token of {files.tokenizer_json}: correct it')
        made = cls(tokenizer, replace(files, special_texts={**files.special_texts, **tokens}), chat_template)
        made._chosen = dict(tokens)
        return made

    def made_of(self) -> tuple[TokenizerFiles, str | None, dict[str, str]]:
        """What `of_files` makes the same tokenizer of, in another process."""
        return self._files, self.chat_template, self._chosen

    def save(self, into: Path) -> None:
        """Write the tokenizer with the template and the special tokens in force, for whoever loads the weights."""
        save_tokenizer(self._files, self.chat_template, self._chosen, into)

    def with_template(self, chat_template: str) -> ChatTokenizer:
        """The same tokenizer under another template. Raises ModelError where that does not parse."""
        made = ChatTokenizer(self._tokenizer, self._files, chat_template)
        made.renderings = self.renderings
        return made

    @cached_property
    def training_twin(self) -> tuple[str, ChatTokenizer] | None:
        """(family, this tokenizer under the family's training template); None where no family writes as this model."""
        for family, source in training_templates().items():
            twin = self.with_template(source)
            if write_alike(self.render, twin.render):
                return family, twin
        return None

    @property
    def eos_id(self) -> int:
        """The token that ends a text."""
        return self.special.eos_id

    @property
    def end_of_turn_id(self) -> int:
        """The token that ends an assistant turn in the template; the end-of-text token where it writes none."""
        return self.special.end_of_turn_id

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, for models that have one."""
        return self.special.bos_id

    @property
    def pad_id(self) -> int:
        """Fills unused slots while sampling. No mask is ever derived from it, so it may equal `end_of_turn_id`."""
        return self.special.pad_id

    @property
    def stop_ids(self) -> frozenset[int]:
        """Sampling ends at any of these."""
        return self.special.stop_ids

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

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, tools: Tools | None = None
    ) -> str:
        """The text of a conversation, as the template writes it."""
        return self._guard.unmark(self._render(messages, add_generation_prompt, tools))

    def prompt_ids(self, prompt: Prompt, tools: Tools | None = None) -> list[int]:
        """Ids of a prompt, up to where the model's answer begins."""
        if isinstance(prompt, str):
            return [*self._text_prefix, *self.encode(prompt)]
        return self._encode(self._render(prompt, True, tools))

    def completion_ids(self, prompt: Prompt, completion: Prompt, tools: Tools | None = None) -> list[int]:
        """Ids that follow `prompt_ids(prompt)`, the end-of-turn token (or end of text, for strings) included.

        Tokenised together with the prompt where that leaves the prompt's ids alone, as transformers does; else, where a
        merge would reach across, on its own. Raises PrefixRewritten where the template rewrites the prompt once the
        answer follows, so that it cannot be told what the answer is.
        """
        if isinstance(prompt, str):
            if not isinstance(completion, str):
                raise DataError("a plain-string prompt needs a plain-string completion, not messages")
            return [*self._pieces(prompt + completion, [len(prompt)])[1], self.eos_id]
        answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        check_messages(answer, "completion")
        if any(message["role"] != "assistant" for message in answer):
            raise DataError("a completion holds a turn that is not the assistant's: give such rows as `messages`")
        before = self._render(prompt, True, tools)
        text = self._answer_text(prompt, answer, tools, before)
        return self._without_tail(self._pieces(before + text, [len(before)])[1])

    def answer_text(self, prompt: Sequence[Message], answer: Message, tools: Tools | None = None) -> str:
        """What the template writes of an assistant turn behind its prompt. Raises PrefixRewritten as above."""
        return self._guard.unmark(self._answer_text(prompt, [answer], tools, self._render(prompt, True, tools)))

    def conversation(
        self, messages: Sequence[Message], turns: Sequence[int] | None = None, tools: Tools | None = None
    ) -> Tokens:
        """Ids of a conversation up to its last trained turn; `turns` are indices, ascending, of assistant turns.

        None trains every assistant turn. Each mask is proved: the rendering up to a turn, and up to its end, must both
        begin the whole rendering; else PrefixRewritten.
        """
        check_messages(messages, "messages")
        if turns is None:
            turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise DataError("a conversation without an assistant turn has nothing to train on")
        whole = self._render(messages[: turns[-1] + 1], False, tools)
        cuts: list[int] = []
        for i in turns:
            before, after = self._render(messages[:i], True, tools), self._render(messages[: i + 1], False, tools)
            if not (after.startswith(before) and whole.startswith(after)):
                raise PrefixRewritten(self._no_prefix(i + 1, f"the conversation up to turn {i + 1}"))
            cuts += [len(before), len(after)]
        ids: list[int] = []
        trained: list[bool] = []
        for number, piece in enumerate(self._pieces(whole, cuts)):
            kept = len(self._without_tail(piece)) if number % 2 == 1 else 0
            ids += piece
            trained += [True] * kept + [False] * (len(piece) - kept)
        end = len(trained) - trained[::-1].index(True) if True in trained else len(ids)
        return Tokens(tuple(ids[:end]), tuple(trained[:end]))

    def whole_conversation(self, messages: Sequence[Message], tools: Tools | None = None) -> Tokens:
        """Ids of a whole conversation as the template writes it, every one of them trained."""
        ids = self._encode(self._render(messages, False, tools))
        return Tokens(tuple(ids), (True,) * len(ids))

    def whole_text(self, text: str) -> Tokens:
        """Ids of a plain text, all of it trained but what the tokenizer puts before it, with the end-of-text token."""
        ids = [*self.encode(text), self.eos_id]
        before = self._text_prefix
        return Tokens((*before, *ids), (False,) * len(before) + (True,) * len(ids))

    # How it is done

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool, tools: Tools | None = None) -> str:
        """A rendering in which forged special tokens are marks."""
        key = ("text", id(self), add_generation_prompt, id(tools), *map(id, messages))
        made = partial(self._rendered, messages, add_generation_prompt, tools)
        return self.renderings.once(key, (*messages, tools), made)

    def _rendered(self, messages: Sequence[Message], add_generation_prompt: bool, tools: Tools | None) -> str:
        check_messages(messages, "prompt")
        if self._template is None:
            raise ModelError(
                f"{self._files.folder}: the model has no chat template, so messages cannot be rendered: use an "
                "instruction-tuned model, put a chat_template.jinja into its folder, or give plain-string prompts"
            )
        self._template.require_written(messages, tools)
        marked = [self._marked(message) for message in messages]
        marked_tools = changed(tools, self._guard.mark)
        text = self._template.render(marked, add_generation_prompt=add_generation_prompt, tools=marked_tools)
        if self._guard.is_escaped(text):
            raise DataError(
                "a tool or message holds the text of a special token, which the template escapes: remove it"
            )
        return text

    def _marked(self, message: Message) -> Message:
        """A message in the form that a template sees, with a mark for each forged special token."""
        key = ("message", id(self), id(message))
        return self.renderings.once(key, message, lambda: for_template([message], self._guard.mark)[0])

    def _as_written(self, messages: Sequence[Message]) -> str:
        """A rendering without marks, for what is asked before there are any."""
        assert self._template is not None
        return self._template.render(messages, add_generation_prompt=False)

    def _answer_text(
        self, prompt: Sequence[Message], answer: Sequence[Message], tools: Tools | None, opened: str
    ) -> str:
        """The text that follows `opened`, the rendering of the prompt, once the answer is there.

        Some templates write the prompt otherwise then, as Mistral's moves the system turn. Their answer is proved where
        the template is stable, behind a bare question: the whole must end with the very same text behind the very same
        opening of a turn. Raises PrefixRewritten where it does not.
        """
        whole = self._render([*prompt, *answer], False, tools)
        if whole.startswith(opened):
            return whole.removeprefix(opened)
        asked, answered = self._render([_QUESTION], True), self._render([_QUESTION, *answer], False)
        closed = self._render(prompt, False, tools)
        text, opening = answered.removeprefix(asked), opened.removeprefix(closed)
        if not (answered.startswith(asked) and opened.startswith(closed) and whole.endswith(opening + text)):
            raise PrefixRewritten(self._no_prefix(len(prompt), "the prompt"))
        return text

    def _encode(self, marked: str) -> list[int]:
        if self._guard.is_marked(marked):
            return self._guard.encode(marked)
        once = self.renderings.once
        return self._stretches.encode(marked, lambda text, encode: once(("ids", id(self), text), None, encode))

    def _pieces(self, whole: str, cuts: Sequence[int]) -> list[list[int]]:
        """The ids of `whole`, cut at ascending character positions.

        Where the stretches encoded on their own add up to the whole's ids, no token straddles a cut, and those are
        used. Some tokenizers mark where a text begins, so that they do not: then every beginning of the text up to a
        cut must have ids that begin the ids of the whole. Otherwise each stretch is encoded on its own.
        """
        bounds = [0, *cuts, len(whole)]
        alone = [self._encode(whole[a:b]) for a, b in pairwise(bounds)]
        all_ids = self._encode(whole)
        if [token for piece in alone for token in piece] == all_ids:
            return alone
        places = [0]
        for cut in cuts:
            beginning = self._encode(whole[:cut])
            if all_ids[: len(beginning)] != beginning:
                return alone
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

    def _remarks(self) -> Iterable[str]:
        if self._template is None:
            yield "The model has no chat template: only plain-string prompts and texts can be used."
        elif not self.special.turn_has_end:
            yield "The chat template ends an assistant turn without a special token: only the end of text stops it."
        if self.special.pad_is_named and self.pad_id == self.end_of_turn_id:
            yield "The padding token is the end-of-turn token. That does no harm here: no mask is made from it."
        if self._template is not None and self._template.tells_the_date:
            yield f"The chat template writes the current date; here it always writes {TEMPLATE_DATE:%d %B %Y}."
