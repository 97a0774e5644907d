"""Craftsman Ultra: run, embed, quantise, verify and judge ternary language models on a CPU.

    >>> from craftsman_ultra import Model
    >>> with Model.open("model.gguf") as model, model.session() as session:
    ...     print(session.generate("A vector is", max_tokens=16, temperature=0.0).text)

Every failure is a :class:`CraftsmanError` whose message is one sentence with its remedy, the same as that of the command
`bitnet`. Long calls release the interpreter's lock, and Ctrl-C ends them.
"""

from ._answers import Event, EventStream, Generation, TextStream, ToolCall
from ._embedder import Embedder
from ._jobs import GateReport, Progress, VerifyReport, eval_gates, quantize, verify
from ._model import Message, Model, Session, Tokenizer
from ._native import ContextFullError, CraftsmanError, UsageError
from ._sampling import Sampling

__all__ = [
    "ContextFullError",
    "CraftsmanError",
    "Embedder",
    "Event",
    "EventStream",
    "GateReport",
    "Generation",
    "Message",
    "Model",
    "Progress",
    "Sampling",
    "Session",
    "TextStream",
    "Tokenizer",
    "ToolCall",
    "UsageError",
    "VerifyReport",
    "eval_gates",
    "quantize",
    "verify",
]
