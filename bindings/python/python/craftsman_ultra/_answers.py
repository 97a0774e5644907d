"""Answers: whole, and part by part while they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, TypeVar

from ._native import NativeStream

T = TypeVar("T")

Reason = Literal["stop", "length", "context", "cancelled", "interrupt", "loop"]


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model calls."""

    name: str
    arguments: str
    """The text of a JSON object."""


@dataclass(frozen=True)
class Event:
    """A part of an answer."""

    kind: Literal["reasoning", "content", "call"]
    text: str
    """The text of the part; the name of the tool where the part is a call."""
    call: ToolCall | None = None


@dataclass(frozen=True)
class Generation:
    """A whole answer."""

    text: str
    """The answer without its thought and its calls."""
    reasoning: str
    calls: tuple[ToolCall, ...]
    tokens: tuple[int, ...]
    reason: Reason
    """Why it ended: `stop` by the model or by a stop text, `length` by max_tokens, `context` because the context is full,
    `cancelled` or `interrupt` because the reader ended it, `loop` because it repeated itself."""
    stopped_by: str | None
    """The stop text that ended it."""
    prompt_tokens: int
    computed_tokens: int
    """Tokens of the prompt that the session did not hold from the call before."""
    prefill_s: float
    """Seconds until the first token."""
    decode_s: float
    """Seconds from the first token to the end."""


class _Stream(Generic[T]):
    """An answer while it is made. The reader may iterate, in threads or with asyncio, and may close it at any time."""

    def __init__(self, native: NativeStream, stops: list[str]) -> None:
        self._native = native
        self._stops = stops

    def _part(self, event: Event) -> T | None:
        raise NotImplementedError

    def _next(self) -> T | None:
        while (found := self._native.next()) is not None:
            kind, text, arguments = found
            call = ToolCall(text, arguments) if kind == "call" else None
            part = self._part(Event(kind, text, call))
            if part is not None:
                return part
        return None

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        part = self._next()
        if part is None:
            raise StopIteration
        return part

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        loop = asyncio.get_running_loop()
        try:
            part = await loop.run_in_executor(None, self._next)
        except asyncio.CancelledError:
            # The thread in the executor returns at the next part, which closing brings about.
            self._native.close()
            raise
        if part is None:
            raise StopAsyncIteration
        return part

    def __enter__(self) -> _Stream[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the answer, and wait until its session is free: at most two layers of a forward pass."""
        self._native.close()

    def result(self) -> Generation:
        """The whole answer, once the stream is read to its end, or closed.

        Raises UsageError before the end.
        """
        facts = self._native.answer()
        stopped_by = facts["stopped_by"]
        stop = None if stopped_by is None else self._stops[stopped_by]
        return Generation(
            text=facts["content"],
            reasoning=facts["reasoning"],
            calls=tuple(ToolCall(name, arguments) for name, arguments in facts["calls"]),
            tokens=tuple(facts["tokens"]),
            reason=facts["reason"],
            stopped_by=stop,
            prompt_tokens=facts["prompt_tokens"],
            computed_tokens=facts["computed_tokens"],
            prefill_s=facts["prefill_s"],
            decode_s=facts["decode_s"],
        )


class TextStream(_Stream[str]):
    """The pieces of an answer's text, without its thought and its calls."""

    def _part(self, event: Event) -> str | None:
        return event.text if event.kind == "content" else None


class EventStream(_Stream[Event]):
    """All parts of an answer: thought, text and calls of tools."""

    def _part(self, event: Event) -> Event | None:
        return event


