"""Texts to vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Literal

from ._native import NativeEmbedder


class Embedder:
    """Turns texts into vectors of unit length. Made by :meth:`Embedder.open`."""

    def __init__(self, native: NativeEmbedder) -> None:
        self._native = native

    @staticmethod
    def open(
        model: str | os.PathLike[str],
        *,
        precision: Literal["f32", "q8_0", "q8_0-a8", "q2_0"] | None = None,
        threads: int | None = None,
    ) -> Embedder:
        """Open a sentence encoder (a folder with a BERT checkpoint), a language model, or `hash` for hashed words.

        `precision` is the type of the matrices of a sentence encoder, by default that of the checkpoint.
        """
        return Embedder(NativeEmbedder(os.fspath(model), precision, threads))

    @property
    def dims(self) -> int:
        """Number of values of a vector."""
        return self._native.dims

    @property
    def identity(self) -> str:
        """A hash of everything that decides the vectors: vectors of one identity can be compared."""
        return self._native.identity

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of texts, `[texts, dims]`, each of length 1. A text without any feature gives zeros."""
        flat, dims = self._native.embed(list(texts)), self.dims
        return [flat[at : at + dims] for at in range(0, len(flat), dims)]

    def close(self) -> None:
        """Give the memory back."""
        self._native.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
