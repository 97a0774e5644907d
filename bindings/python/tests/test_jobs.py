"""Jobs over whole models, and embedders."""

import json
import math
from pathlib import Path

import pytest
from conftest import FIXTURES

from craftsman_ultra import CraftsmanError, Embedder, Model, UsageError, eval_gates, quantize, verify


def test_quantize_reports_and_verify_finds_a_defect(teacher_path: str, tmp_path: Path) -> None:
    out, stages = tmp_path / "student.gguf", []
    report = quantize(
        teacher_path, out, preset="quality", threads=1, on_progress=lambda *news: stages.append(news)
    )
    assert report["output_bytes"] == out.stat().st_size
    names = [stage for stage, _, _ in stages]
    assert "quantising" in names and names.index("quantising") < names.index("verifying")
    assert stages[-1][1] == stages[-1][2] > 0
    with pytest.raises(CraftsmanError, match="force"):
        quantize(teacher_path, out)
    with pytest.raises(UsageError, match="preset"):
        quantize(teacher_path, out, preset="best")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="calibration"):
        quantize(teacher_path, out, method="gptq")

    good = verify(out)
    assert good.valid and not good.defects and good.bytes < report["output_bytes"]
    with Model.open(out) as model:
        assert model.identity() == good.identity
    data = bytearray(out.read_bytes())
    data[-64:] = b"\xff" * 64
    out.write_bytes(data)
    bad = verify(out)
    assert not bad.valid and bad.defects and bad.identity != good.identity


def test_a_stopped_job_goes_on_and_ends_with_the_same_bytes(
    teacher_path: str, student_path: str, tmp_path: Path
) -> None:
    out = tmp_path / "student.gguf"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "quantising":
            raise InterruptedError(stage)

    with pytest.raises(InterruptedError):
        quantize(teacher_path, out, threads=1, on_progress=stop)
    assert not out.exists() and (tmp_path / "student.gguf.partial").exists()
    quantize(teacher_path, out, threads=1)
    assert out.read_bytes() == Path(student_path).read_bytes()
    assert not (tmp_path / "student.gguf.partial").exists()


def few_prompts(folder: Path) -> tuple[Path, Path]:
    """Three resolved, two contested and three indeterminate prompts of the fixture, in files of their own."""
    suites = FIXTURES / "suites"
    lines = [json.loads(line) for line in (suites / "suite-200.jsonl").read_text().splitlines()]
    few = [
        line
        for label, n in (("resolved", 3), ("contested", 2), ("indeterminate", 3))
        for line in [line for line in lines if line["label"] == label][:n]
    ]
    ids = {line["prompt_id"] for line in few}
    chunks = [json.loads(line) for line in (suites / "suite-200.corpus.jsonl").read_text().splitlines()]
    suite, corpus = folder / "few.jsonl", folder / "few.corpus.jsonl"
    suite.write_text("\n".join(json.dumps(line) for line in few))
    corpus.write_text("\n".join(json.dumps(chunk) for chunk in chunks if chunk["prompt_id"] in ids))
    return suite, corpus


def test_the_gates_judge_a_student(teacher_path: str, student_path: str, tmp_path: Path) -> None:
    suite, corpus = few_prompts(tmp_path)
    gates = ["routing_agreement", "citation_precision", "citation_recall", "refusal_f1", "must_refuse", "must_answer"]
    stages: list[str] = []

    def judge(threshold: float) -> bool:
        result = eval_gates(
            teacher_path,
            student_path,
            suite=suite,
            corpus=corpus,
            artifacts=tmp_path / "artifacts",
            report=tmp_path / "report",
            thresholds={gate: threshold for gate in gates},
            min_prompts=1,
            threads=1,
            on_progress=lambda stage, done, total: stages.append(stage),
        )
        written = json.loads((tmp_path / "report" / "report.json").read_text())
        assert written == result.report and result.verdict == ("SHIP" if result.passed else "NO-SHIP")
        return result.passed

    assert judge(0.0)
    assert "teacher" in stages and "student" in stages
    stages.clear()
    assert not judge(1.0)
    assert "teacher" not in stages, "the recordings of the teacher are used again"
    with pytest.raises(UsageError, match="gate"):
        eval_gates(teacher_path, student_path, suite=suite, corpus=corpus, thresholds={"beauty": 1.0})


def test_embedders_give_unit_vectors(teacher_path: str) -> None:
    for model, dims in (("hash", 384), (teacher_path, 256), (str(FIXTURES / "goldens" / "bert-tiny"), None)):
        with Embedder.open(model, threads=1) as embedder:
            near, far = embedder.embed(["the gate is open", "a river in spring"])
            assert len(near) == embedder.dims and dims in (None, len(near))
            assert math.isclose(sum(x * x for x in near), 1.0, rel_tol=1e-4) and near != far
            assert embedder.embed(["the gate is open"])[0] == near
    with pytest.raises(UsageError, match="no matrices"):
        Embedder.open("hash", precision="q8_0")
    with pytest.raises(UsageError, match="closed"):
        embedder.embed(["x"])
