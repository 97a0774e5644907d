"""The models of the tests: fixtures of the repository, and a student that the package makes of one of them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from craftsman_ultra import Model, quantize

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "fixtures"


@pytest.fixture(scope="session")
def teacher_path() -> str:
    """A small GLM of 5 layers that answers English, BF16."""
    return str(FIXTURES / "craftsman-mini")


@pytest.fixture(scope="session")
def tiny_path() -> str:
    """A random model of 2 layers whose tokens are bytes."""
    return str(FIXTURES / "goldens" / "glm-tiny")


@pytest.fixture(scope="session")
def thinking_path(teacher_path: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The teacher with a chat template that opens a thought where it is asked to."""
    folder = tmp_path_factory.mktemp("thinking")
    for file in Path(teacher_path).iterdir():
        if file.is_file() and file.name != "tokenizer_config.json":
            (folder / file.name).symlink_to(file)
    config = json.loads((Path(teacher_path) / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<|assistant|>"
        "{% if enable_thinking %}<think>{% endif %}"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="session")
def student_path(teacher_path: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ternary student of the teacher."""
    out = tmp_path_factory.mktemp("student") / "student.gguf"
    quantize(teacher_path, out, threads=1)
    return str(out)


@pytest.fixture(scope="session")
def teacher(teacher_path: str) -> Iterator[Model]:
    """The loaded teacher."""
    with Model.open(teacher_path, threads=1) as model:
        yield model


@pytest.fixture(scope="session")
def bitnet() -> str:
    """The command line of the same sources: the variable BITNET, or a build in the folder `target`."""
    named = os.environ.get("BITNET")
    built = [ROOT / "target" / profile / "bitnet" for profile in ("release", "checked")]
    found = [named] if named else [str(path) for path in built if path.is_file()]
    assert found, "there is no `bitnet` to compare with: build it (cargo build --release -p bitnet-cli), or set BITNET"
    return found[0]
