"""Jobs over whole models: quantise, verify, and judge by the behavioural gates.

A job may be interrupted at any time, by Ctrl-C or by an exception of `on_progress`; the same call resumes it, and ends with
the same result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import _native

PathLike = str | os.PathLike[str]
Progress = Callable[[str, int, int], object]
"""Gets the stage of a job, how much of it is done, and how much there is to do."""
Preset = Literal["quality", "balanced", "8g", "phase1", "phase2"]
Method = Literal["ls", "absmean", "gptq"]


@dataclass(frozen=True)
class VerifyReport:
    """The result of reading a whole model."""

    valid: bool
    defects: tuple[str, ...]
    """One sentence per defect."""
    notices: tuple[str, ...]
    """Findings that a model may have been made with."""
    identity: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class GateReport:
    """The result of a gate run."""

    passed: bool
    verdict: str
    """SHIP or NO-SHIP."""
    report: Mapping[str, Any]
    """The whole report, as `report.json` has it."""


def verify(path: PathLike, *, allow_zero: bool = False, on_progress: Progress | None = None) -> VerifyReport:
    """Read a whole model and name every defect.

    Raises CraftsmanError for a file that cannot be opened at all.
    """
    text, valid, defects, notices = _native.verify(os.fspath(path), allow_zero, on_progress)
    report = json.loads(text)
    return VerifyReport(
        valid, tuple(defects), tuple(notices), report["identity"], report["tensors"], report["bytes"]
    )


def quantize(
    source: PathLike,
    out: PathLike,
    *,
    preset: Preset = "balanced",
    ternary: str | None = None,
    tensor_types: Sequence[str] = (),
    method: Method = "ls",
    calibration: Sequence[PathLike] = (),
    calibration_tokens: int | None = None,
    seed: int = 0,
    max_memory: int | None = None,
    force: bool = False,
    allow_zero: bool = False,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Make a ternary student of a checkpoint, and return the `report` that `bitnet quantize --json` prints at its end.

    Args:
        preset: Starting point of the types of tensors.
        ternary: The ternary type in place of the preset's, or `none` for F16.
        tensor_types: Exceptions as REGEX=TYPE; the last match wins.
        method: How weights become trits: `ls` by least squares, `absmean` by the published rule, `gptq` on the texts of
            `calibration`.
        calibration: Files of text.
        calibration_tokens: Most tokens of the windows that are taken from them.
        seed: Start of the choice of the windows.
        max_memory: Most bytes of resident memory.
        force: Whether an existing `out` is replaced.
        allow_zero: Whether weights may be missing.
    """
    arguments = {
        "source": os.fspath(source),
        "out": os.fspath(out),
        "preset": preset,
        "ternary": ternary,
        "tensor_types": list(tensor_types),
        "method": method,
        "calibration": [os.fspath(path) for path in calibration],
        "calibration_tokens": calibration_tokens,
        "seed": seed,
        "max_memory": max_memory,
        "force": force,
        "allow_zero": allow_zero,
        "threads": threads,
    }
    report: dict[str, Any] = json.loads(_native.quantize(arguments, on_progress))
    return report


def eval_gates(
    teacher: PathLike,
    student: PathLike,
    *,
    suite: PathLike,
    corpus: PathLike,
    artifacts: PathLike = os.path.join("eval", "artifacts"),
    report: PathLike | None = None,
    strict: bool = False,
    thresholds: Mapping[str, float] | None = None,
    min_prompts: int | None = None,
    router_inputs: bool = True,
    max_new_tokens: int = 64,
    act: Literal["f32", "a8-block", "a8-token"] = "f32",
    kv: Literal["f16", "f32", "i8"] = "f32",
    allow_zero: bool = False,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> GateReport:
    """Decide whether a student may be called ready: teacher and student answer a suite of prompts.

    Args:
        suite: The prompts, one JSON object per line.
        corpus: The chunks of text that they quote, one JSON object per line.
        artifacts: Folder that keeps the recordings of the teacher; the command `bitnet eval-gates` uses the same ones.
        report: Folder for the report as HTML, Markdown, JSON and JUnit; without it no file is written.
        thresholds: Thresholds by gate, for example ``{"must_answer": 0.99}``.
        min_prompts: Smallest number of prompts that a figure may rest on.
        router_inputs: Whether the inputs of the teacher's routers are recorded, which local routing needs.
    """
    arguments = {
        "teacher": os.fspath(teacher),
        "student": os.fspath(student),
        "suite": os.fspath(suite),
        "corpus": os.fspath(corpus),
        "artifacts": os.fspath(artifacts),
        "report": None if report is None else os.fspath(report),
        "strict": strict,
        "thresholds": list((thresholds or {}).items()),
        "min_prompts": min_prompts,
        "router_inputs": router_inputs,
        "max_new_tokens": max_new_tokens,
        "act": act,
        "kv": kv,
        "allow_zero": allow_zero,
        "threads": threads,
    }
    text, passed = _native.eval_gates(arguments, on_progress)
    whole = json.loads(text)
    return GateReport(passed, whole["verdict"], whole)
