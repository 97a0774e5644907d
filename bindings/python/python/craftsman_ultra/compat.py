"""The class `Llama` with the members of llama-cpp-python that programs and adapters use.

A program that imports `from llama_cpp import Llama` runs with `from craftsman_ultra.compat import Llama`. Arguments that
have no meaning here, such as `n_gpu_layers`, are taken and have no effect.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from ._answers import Event, EventStream, Generation
from ._model import Message, Model
from ._native import NativeSampler, UsageError
from ._sampling import settings

Json = dict[str, Any]
Stop = str | Sequence[str] | None


class LlamaState:
    """A sequence that :meth:`Llama.save_state` kept."""

    def __init__(self, saved: bytes, n_tokens: int) -> None:
        self.saved = saved
        self.n_tokens = n_tokens


class Llama:
    """A model with one sequence."""

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        n_ctx: int = 512,
        n_threads: int | None = None,
        seed: int = 0,
        embedding: bool = False,
        logits_all: bool = False,
        verbose: bool = True,
        **unused: object,
    ) -> None:
        """Open a model; `n_ctx` 0 takes the context that the model was made for.

        `embedding`, `verbose` and arguments without a meaning here have no effect. `logits_all` is needed for `logprobs`,
        which are not offered, and is refused.
        """
        if logits_all:
            raise UsageError("logits_all is not offered: logits are those of the last token, as `scores` has them")
        self.model_path = os.fspath(model_path)
        self.verbose = verbose
        self._model = Model.open(model_path, threads=n_threads, n_ctx=n_ctx or None)
        self._session = self._model.session(None if n_ctx else self._model._native.contexts[1])
        self._tokenizer = self._model.tokenizer
        self._seed = seed
        self._sampler: tuple[tuple[float, ...], NativeSampler] | None = None

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """The tokens of a text; with `add_bos` behind those that the model expects before raw text."""
        prefix = self._tokenizer.raw_prefix if add_bos else []
        return prefix + self._tokenizer.encode(text.decode("utf-8", errors="ignore"), parse_special=special)

    def detokenize(self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False) -> bytes:
        """The bytes of tokens; control tokens are left out unless `special`."""
        if special:
            return b"".join(self._tokenizer.piece(token) for token in tokens)
        hidden = {token for token in tokens if not self._tokenizer.decode([token])}
        return b"".join(self._tokenizer.piece(token) for token in tokens if token not in hidden)

    def reset(self) -> None:
        """Forget all tokens."""
        self._session.truncate(0)

    def eval(self, tokens: Sequence[int]) -> None:
        """Append tokens to the sequence."""
        self._session.append(tokens)

    @property
    def scores(self) -> memoryview[float]:
        """The logits after the last token, `[vocab]`."""
        return self._session.logits()

    def sample(
        self,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        temp: float = 0.8,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        **unused: object,
    ) -> int:
        """The next token after those that :meth:`eval` appended."""
        key = (top_k, top_p, min_p, temp, repeat_penalty, frequency_penalty, presence_penalty)
        if self._sampler is None or self._sampler[0] != key:
            chosen = {
                "top_k": top_k,
                "top_p": top_p,
                "min_p": min_p,
                "temperature": temp,
                "repeat_penalty": repeat_penalty,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "seed": self._seed,
            }
            self._sampler = (key, NativeSampler(settings(chosen)))
        return self._sampler[1].sample(self._session._native)

    def generate(
        self,
        tokens: Sequence[int],
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        temp: float = 0.8,
        repeat_penalty: float = 1.0,
        reset: bool = True,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        stopping_criteria: Callable[[list[int], memoryview[float]], bool] | None = None,
        **unused: object,
    ) -> Generator[int, Sequence[int] | None, None]:
        """Tokens behind `tokens`, without an end of their own; tokens that are sent in are appended before the next one.

        With `reset`, the beginning that `tokens` share with the sequence is not computed again.
        """
        self._sampler = None
        pending = list(tokens)
        if reset:
            held = self._session.tokens
            common = 0
            while common < min(len(held), len(pending) - 1) and held[common] == pending[common]:
                common += 1
            self._session.truncate(common)
            pending = pending[common:]
        while True:
            self.eval(pending)
            token = self.sample(
                top_k, top_p, min_p, temp, repeat_penalty, frequency_penalty, presence_penalty
            )
            if stopping_criteria is not None and stopping_criteria(self._session.tokens, self.scores):
                return
            sent = yield token
            pending = [token, *(sent or ())]

    def create_completion(
        self,
        prompt: str | Sequence[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        logprobs: int | None = None,
        echo: bool = False,
        stop: Stop = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        model: str | None = None,
        logit_bias: Mapping[int, float] | None = None,
        **unused: object,
    ) -> Any:
        """Continue a text, as OpenAI's completions: a dictionary, or with `stream` an iterator of them.

        `max_tokens` None, or below 1, ends at the context.
        """
        if suffix is not None or logprobs is not None:
            raise UsageError("suffix and logprobs are not offered: leave them out")
        chosen = self._chosen(
            max_tokens, stop, seed, logit_bias,
            {
                "temperature": temperature,
                "top_p": top_p,
                "min_p": min_p,
                "top_k": top_k,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "repeat_penalty": repeat_penalty,
            },
        )  # fmt: skip
        head = self._head("cmpl-", "text_completion", model)
        start = (prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt)) if echo else ""
        events = self._session.events(prompt, **chosen)
        if stream:
            return self._completion_chunks(events, head, start)
        answer = _whole(events)
        choice = _choice(answer, {"text": start + answer.text, "logprobs": None})
        return {**head, "choices": [choice], "usage": _usage(answer)}

    def __call__(self, prompt: str, *args: Any, **options: Any) -> Any:
        """As :meth:`create_completion`."""
        return self.create_completion(prompt, *args, **options)

    def create_chat_completion(
        self,
        messages: Sequence[Message],
        functions: None = None,
        function_call: None = None,
        tools: Sequence[Message] | None = None,
        tool_choice: str | None = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        stream: bool = False,
        stop: Stop = None,
        seed: int | None = None,
        response_format: None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        model: str | None = None,
        logit_bias: Mapping[int, float] | None = None,
        thinking: bool | None = None,
        **unused: object,
    ) -> Any:
        """Answer a conversation, as OpenAI's chat completions: a dictionary, or with `stream` an iterator of them.

        `thinking` says whether the model thinks first; the thought is `reasoning_content`.
        """
        if functions or function_call or response_format or tool_choice not in (None, "auto", "none"):
            raise UsageError("functions, response_format and demanded tools are not offered: use tools")
        chosen = self._chosen(
            max_tokens, stop, seed, logit_bias,
            {
                "temperature": temperature,
                "top_p": top_p,
                "min_p": min_p,
                "top_k": top_k,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "repeat_penalty": repeat_penalty,
            },
        )  # fmt: skip
        offered = [] if tools is None or tool_choice == "none" else tools
        events = self._session.events(messages, tools=offered, thinking=thinking, **chosen)
        if stream:
            return self._chat_chunks(events, self._head("chatcmpl-", "chat.completion.chunk", model))
        answer = _whole(events)
        message: Json = {"role": "assistant", "content": answer.text}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.calls:
            message["tool_calls"] = [_call(name=c.name, arguments=c.arguments) for c in answer.calls]
        choice = _choice(answer, {"message": message, "logprobs": None})
        return {
            **self._head("chatcmpl-", "chat.completion", model),
            "choices": [choice],
            "usage": _usage(answer),
        }

    def create_embedding(self, input: str | Sequence[str], model: str | None = None) -> Json:
        """The means of the final hidden states of texts, as OpenAI's embeddings."""
        texts = [input] if isinstance(input, str) else list(input)
        data = [
            {"object": "embedding", "index": index, "embedding": self._session.embed(text)}
            for index, text in enumerate(texts)
        ]
        tokens = sum(len(self._tokenizer.encode(text)) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": model or self.model_path, "usage": usage}

    def embed(self, input: str | Sequence[str]) -> Any:
        """The vector of a text, or the vectors of texts."""
        data = self.create_embedding(input)["data"]
        vectors = [item["embedding"] for item in data]
        return vectors[0] if isinstance(input, str) else vectors

    def save_state(self) -> LlamaState:
        """Keep the sequence."""
        return LlamaState(self._session.save(), self.n_tokens)

    def load_state(self, state: LlamaState) -> None:
        """Go on with a sequence that was kept."""
        self._session.load(state.saved)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of the sequence."""
        return len(self._session.tokens)

    def n_ctx(self) -> int:
        """Number of tokens that fit."""
        return self._session.n_ctx

    def n_vocab(self) -> int:
        """Number of logits of a position."""
        return self._model.vocab_size

    def n_embd(self) -> int:
        """Number of values of an embedding."""
        return self._model.hidden

    def token_bos(self) -> int:
        """The token at the beginning of a text; -1 without one."""
        bos = self._tokenizer.bos
        return -1 if bos is None else bos

    def token_eos(self) -> int:
        """The token at the end of a text; -1 without one."""
        eos = self._tokenizer.eos
        return -1 if eos is None else eos

    def set_seed(self, seed: int) -> None:
        """Set the start of the random numbers."""
        self._seed, self._sampler = seed, None

    def close(self) -> None:
        """Give the memory back."""
        self._session.close()
        self._model.close()

    def __enter__(self) -> Llama:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _chosen(
        self, max_tokens: int | None, stop: Stop, seed: int | None, bias: Mapping[int, float] | None, rest: Json
    ) -> Any:
        limit = self.n_ctx() if max_tokens is None or max_tokens < 1 else max_tokens
        return {
            **rest,
            "max_tokens": limit,
            "stop": stop or (),
            "seed": self._seed if seed is None else seed,
            "logit_bias": {} if bias is None else {int(token): value for token, value in bias.items()},
            "top_k": max(0, rest["top_k"]),
        }

    def _head(self, prefix: str, kind: str, model: str | None) -> Json:
        return {
            "id": prefix + str(uuid.uuid4()),
            "object": kind,
            "created": int(time.time()),
            "model": model or self.model_path,
        }

    def _completion_chunks(self, events: EventStream, head: Json, start: str) -> Iterator[Json]:
        def chunk(text: str, finish: str | None) -> Json:
            choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
            return {**head, "choices": [choice]}

        with events:
            if start:
                yield chunk(start, None)
            for event in events:
                yield chunk(event.text, None)
            yield chunk("", _finish(events.result()))

    def _chat_chunks(self, events: EventStream, head: Json) -> Iterator[Json]:
        def chunk(delta: Json, finish: str | None) -> Json:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return {**head, "choices": [choice]}

        with events:
            yield chunk({"role": "assistant"}, None)
            n_calls = 0
            for event in events:
                yield chunk(_delta(event, n_calls), None)
                n_calls += event.kind == "call"
            yield chunk({}, _finish(events.result()))


def _whole(events: EventStream) -> Generation:
    with events:
        for _ in events:
            pass
        return events.result()


def _delta(event: Event, n_calls: int) -> Json:
    if event.call is not None:
        return {"tool_calls": [{"index": n_calls, **_call(event.call.name, event.call.arguments)}]}
    return {"reasoning_content" if event.kind == "reasoning" else "content": event.text}


def _call(name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": "call_" + uuid.uuid4().hex, "type": "function", "function": function}


def _choice(answer: Generation, content: Json) -> Json:
    return {"index": 0, **content, "finish_reason": _finish(answer)}


def _finish(answer: Generation) -> str:
    if answer.calls:
        return "tool_calls"
    return "stop" if answer.reason in ("stop", "loop") else "length"


def _usage(answer: Generation) -> Json:
    n_tokens = len(answer.tokens)
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": n_tokens,
        "total_tokens": answer.prompt_tokens + n_tokens,
    }
