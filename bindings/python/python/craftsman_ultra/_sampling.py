"""How tokens are chosen, and when an answer ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ._native import UsageError


class Sampling(TypedDict, total=False):
    """The settings of an answer. A setting that is not given is the model's own recommendation."""

    max_tokens: int
    """Most tokens of the answer; 512 where nothing is given."""
    temperature: float | None
    """Divides the logits; 0 always takes the most likely token."""
    top_p: float | None
    """Keep the most likely tokens that hold this share of the probability, in (0, 1]."""
    min_p: float | None
    """Drop tokens less likely than this share of the most likely one, in [0, 1]."""
    top_k: int | None
    """Keep this many tokens; 0 keeps all."""
    repeat_penalty: float | None
    """Divides the logits of tokens that the answer holds, in [0.1, 10]; 1 changes none."""
    frequency_penalty: float | None
    """Taken from the logit of a token once for each time that the answer holds it, in [-2, 2]."""
    presence_penalty: float | None
    """Taken from the logits of tokens that the answer holds, in [-2, 2]."""
    seed: int
    """Start of the random numbers; the same seed gives the same answer. 0 where nothing is given."""
    think_budget: int | None
    """Most tokens of a thought before the answer."""
    stop: str | Sequence[str]
    """Texts that end the answer and are no part of it; at most 16."""
    logit_bias: Mapping[int, float]
    """Numbers in [-100, 100] that are added to the logits of tokens."""
    detect_loops: bool
    """Whether an answer that repeats itself is ended; true where nothing is given."""


_DEFAULTS: dict[str, Any] = {
    "max_tokens": 512,
    "temperature": None,
    "top_p": None,
    "min_p": None,
    "top_k": None,
    "repeat_penalty": None,
    "frequency_penalty": None,
    "presence_penalty": None,
    "seed": 0,
    "think_budget": None,
    "stop": (),
    "logit_bias": {},
    "detect_loops": True,
}


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, as the native part takes them."""
    unknown = sorted(set(options) - set(_DEFAULTS))
    if unknown:
        raise UsageError(f"`{unknown[0]}` is no setting of an answer; choose {', '.join(sorted(_DEFAULTS))}")
    all_of_them = {**_DEFAULTS, **options}
    stop = all_of_them["stop"] or ()
    all_of_them["stop"] = [stop] if isinstance(stop, str) else list(stop)
    all_of_them["logit_bias"] = list((all_of_them["logit_bias"] or {}).items())
    for name in ("max_tokens", "seed", "top_k"):
        value = all_of_them[name]
        if value is not None and value < 0:
            raise UsageError(f"{name} = {value} is below 0; give 0 or more")
    return all_of_them
