"""Models, sessions and tokenizers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ._answers import EventStream, Generation, TextStream
from ._native import CraftsmanError, NativeModel, NativeSession, NativeTokenizer
from ._sampling import Sampling, settings

if TYPE_CHECKING:
    from typing_extensions import Unpack

Message = Mapping[str, Any]
"""A message in the shape of OpenAI's chat API: `role`, `content`, and perhaps `reasoning_content`, `tool_calls`."""
Prompt = str | Sequence[int] | Sequence[Message]
"""A text to continue, tokens to continue, or a conversation to answer."""
Layout = Literal["auto", "file", "packed"]
Act = Literal["f32", "a8-block", "a8-token"]
Kv = Literal["f16", "f32", "i8"]
PathLike = str | os.PathLike[str]


class Tokenizer:
    """Text to tokens and back."""

    def __init__(self, native: NativeTokenizer) -> None:
        self._native = native

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """The tokens of a text; nothing is put in front. With `parse_special`, texts of control tokens become those
        tokens, which is wrong for text of strangers."""
        return self._native.encode(text, parse_special)

    def decode(self, tokens: Sequence[int], *, show_special: bool = False) -> str:
        """The text of tokens; control tokens are left out unless `show_special`."""
        return self._native.decode(list(tokens), show_special)

    def piece(self, token: int) -> bytes:
        """The bytes of a token, which may be a part of a character; empty outside the vocabulary."""
        return self._native.piece(token)

    def token_to_id(self, text: str) -> int | None:
        """The id of a token by its text as the vocabulary spells it."""
        return self._native.token_to_id(text)

    def token_text(self, token: int) -> str | None:
        """The text of a token as the vocabulary spells it."""
        return self._native.token_text(token)

    @property
    def raw_prefix(self) -> list[int]:
        """The tokens that the model expects before raw text."""
        return self._native.raw_prefix()

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self._native.vocab_size

    @property
    def stop_tokens(self) -> list[int]:
        """Tokens that end an answer."""
        return self._native.stop_tokens

    @property
    def bos(self) -> int | None:
        """The token at the beginning of a text."""
        return self._native.bos

    @property
    def eos(self) -> int | None:
        """The token at the end of a text."""
        return self._native.eos

    @property
    def chat_template(self) -> str | None:
        """The source of the chat template."""
        return self._native.chat_template


class Session:
    """One sequence of tokens over a model. Made by :meth:`Model.session`.

    One call at a time uses a session; calls of several threads need a session each. A prompt that begins as the last
    one did is computed from where they differ.
    """

    def __init__(self, native: NativeSession) -> None:
        self._native = native

    def stream(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Message] = (),
        thinking: bool | None = None,
        parse_special: bool = False,
        **sampling: Unpack[Sampling],
    ) -> TextStream:
        """Answer a prompt piece by piece. The stream is an iterator and an async iterator of texts."""
        return TextStream(*self._start(prompt, (tools, thinking, parse_special), sampling))

    def events(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Message] = (),
        thinking: bool | None = None,
        parse_special: bool = False,
        **sampling: Unpack[Sampling],
    ) -> EventStream:
        """As :meth:`stream`, with the parts of the thought and the calls of tools."""
        return EventStream(*self._start(prompt, (tools, thinking, parse_special), sampling))

    def generate(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[Message] = (),
        thinking: bool | None = None,
        parse_special: bool = False,
        on_text: Callable[[str], object] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generation:
        """Answer a prompt. A text and tokens are continued; messages are answered with the model's chat template.

        `thinking` says whether the model thinks first (by default, as its template says), `parse_special` makes control
        tokens of their texts in a raw prompt, and `on_text` gets each piece of the text.

        Raises ContextFullError for a prompt that does not fit, CraftsmanError for every failure of the model, and
        KeyboardInterrupt within two layers of Ctrl-C.
        """
        with self.stream(
            prompt, tools=tools, thinking=thinking, parse_special=parse_special, **sampling
        ) as stream:
            for piece in stream:
                if on_text is not None:
                    on_text(piece)
            return stream.result()

    def count_tokens(self, prompt: Prompt, *, tools: Sequence[Message] = (), thinking: bool | None = None) -> int:
        """Number of tokens of a prompt, with everything that is put around it."""
        return self._native.count_tokens(_ask(prompt, (tools, thinking, False)))

    def append(self, tokens: Sequence[int]) -> None:
        """Append tokens to the sequence; :meth:`logits` are then those of the next token."""
        self._native.append(list(tokens))

    def logits(self) -> memoryview[float]:
        """The logits after the last appended token, `[vocab]`, as 32-bit floats."""
        return memoryview(self._native.logits()).cast("f")

    def truncate(self, length: int) -> None:
        """Remove the tokens from position `length` on."""
        self._native.truncate(length)

    def embed(self, text: str) -> list[float]:
        """The mean of the final hidden states of a text, `[hidden]`. The sequence is empty afterwards."""
        return self._native.embed(text)

    def save(self) -> bytes:
        """The sequence as bytes, for :meth:`load` of a session of the same model in any process."""
        return self._native.save()

    def load(self, saved: bytes) -> None:
        """Replace the sequence by a saved one. Raises CraftsmanError for bytes of another model, and for damaged ones."""
        self._native.load(saved)

    @property
    def tokens(self) -> list[int]:
        """The tokens of the sequence."""
        return self._native.tokens()

    @property
    def n_ctx(self) -> int:
        """Number of tokens that fit."""
        return self._native.n_ctx

    def close(self) -> None:
        """End what runs, and give the memory of the sequence back."""
        self._native.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(
        self, prompt: Prompt, how: tuple[Sequence[Message], bool | None, bool], sampling: Sampling
    ) -> tuple[Any, list[str]]:
        all_of_them = settings(sampling)
        return self._native.start(_ask(prompt, how), all_of_them), all_of_them["stop"]


class Model:
    """A model in memory. Made by :meth:`Model.open`.

    Pickling keeps the path, the options and the identity of the files; unpickling opens the model again, and refuses
    files that have changed.
    """

    def __init__(self, native: NativeModel, options: dict[str, Any]) -> None:
        self._native = native
        self._options = options

    @staticmethod
    def open(
        path: PathLike,
        *,
        threads: int | None = None,
        memory: int | None = None,
        layout: Layout = "auto",
        act: Act | None = None,
        n_ctx: int | None = None,
        allow_zero: bool = False,
    ) -> Model:
        """Open a checkpoint directory, a GGUF file, or a name in the local Hugging Face cache.

        Args:
            threads: Threads that compute; one per physical core where nothing is given.
            memory: Most bytes that the model may take; one that needs more is refused.
            layout: Where ternary weights lie: `packed` in memory as tiles, in the `file`, or `auto`: packed as far as the
                memory allows.
            act: Type of the activations; by default that of the model.
            n_ctx: Tokens of a session that does not say otherwise; 4096, or less where the model was made for less.
            allow_zero: Whether weights may be missing.

        Raises CraftsmanError for files that cannot be used, UsageError for options that cannot.
        """
        options = {
            "threads": threads,
            "memory": memory,
            "layout": layout,
            "act": act,
            "n_ctx": n_ctx,
            "allow_zero": allow_zero,
        }
        return Model(NativeModel({"path": os.fspath(path), **options}), options)

    def session(self, n_ctx: int | None = None, *, kv: Kv = "f16") -> Session:
        """A new sequence with room for `n_ctx` tokens, whose cache holds numbers of type `kv`."""
        return Session(self._native.session(n_ctx, kv))

    def render(self, messages: Sequence[Message], *, tools: Sequence[Message] = (), thinking: bool | None = None) -> str:
        """The text of the prompt that the chat template makes of messages."""
        ask = _ask(messages, (tools, thinking, False))
        return self._native.render(ask)

    def identity(self, on_progress: Callable[[str, int, int], object] | None = None) -> str:
        """The BLAKE3 of the weights and metadata; the first call reads the whole model."""
        return self._native.identity(on_progress)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""
        return Tokenizer(self._native.tokenizer())

    @property
    def path(self) -> str:
        """The file or directory that was opened."""
        return os.fspath(self._native.path)

    @property
    def architecture(self) -> str:
        """The name of the architecture, as in `config.json`."""
        return self._native.architecture

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return self._native.shape[0]

    @property
    def hidden(self) -> int:
        """Width of the hidden states."""
        return self._native.shape[1]

    @property
    def vocab_size(self) -> int:
        """Number of logits of a position."""
        return self._native.shape[2]

    @property
    def n_ctx(self) -> int:
        """Tokens of a session that does not say otherwise."""
        return self._native.contexts[0]

    @property
    def threads(self) -> int:
        """Threads that compute."""
        return self._native.threads

    @property
    def closed(self) -> bool:
        """Whether the model was closed."""
        return self._native.closed

    def close(self) -> None:
        """Give the memory back. Open sessions keep the model until they are closed."""
        self._native.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[str, dict[str, Any], str]]:
        return _reopen, (os.path.abspath(self.path), self._options, self.identity())


def _reopen(path: str, options: dict[str, Any], identity: str) -> Model:
    """Open a pickled model again."""
    model = Model.open(path, **options)
    found = model.identity()
    if found != identity:
        model.close()
        raise CraftsmanError(
            f"{path} has the identity {found}, and the pickled model had {identity}: "
            "give this machine the same file, or pickle the model again"
        )
    return model


def _ask(prompt: Prompt, how: tuple[Sequence[Message], bool | None, bool]) -> Any:
    """A prompt as the native part takes it."""
    tools, thinking, parse_special = how
    if isinstance(prompt, str):
        return prompt, parse_special
    items: list[Any] = list(prompt)
    if items and all(isinstance(item, int) for item in items):
        return items
    return json.dumps(
        {"messages": items, "tools": list(tools), "thinking": thinking, "now": int(time.time())}
    )
