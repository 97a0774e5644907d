"""The members of `Llama`, and the documented example."""

import runpy
import sys
from itertools import islice
from pathlib import Path

import pytest

from craftsman_ultra import UsageError
from craftsman_ultra.compat import Llama

PROMPT = "A vector is"


def test_the_loop_of_a_program_gives_the_completion(teacher_path: str) -> None:
    with Llama(teacher_path, n_ctx=256, n_threads=1, embedding=True, verbose=False, n_gpu_layers=0) as llama:
        tokens = llama.tokenize(PROMPT.encode())
        whole = llama.create_completion(PROMPT, max_tokens=12, temperature=0.0)
        text = whole["choices"][0]["text"]
        assert whole["usage"] == {
            "prompt_tokens": len(tokens),
            "completion_tokens": 12,
            "total_tokens": len(tokens) + 12,
        }
        assert whole["choices"][0]["finish_reason"] == "length"
        made = list(islice(llama.generate(tokens, temp=0.0), 12))
        assert llama.detokenize(made).decode() == text
        llama.reset()
        llama.eval(tokens)
        state = llama.save_state()
        by_hand = []
        for _ in range(12):
            by_hand.append(llama.sample(temp=0.0))
            llama.eval(by_hand[-1:])
        assert by_hand == made
        llama.load_state(state)
        assert (llama.n_tokens, llama.n_ctx(), len(llama.tokenize(b"", add_bos=True))) == (len(tokens), 256, 2)
        llama.eval(made[:1])
        assert llama.sample(temp=0.0) == made[1]
        assert len(llama.scores) == llama.n_vocab()
        llama.set_seed(5)
        drawn = list(islice(llama.generate(tokens, temp=1.5), 12))
        llama.set_seed(5)
        assert list(islice(llama.generate(tokens, temp=1.5), 12)) == drawn


def test_chunks_stops_and_embeddings(teacher_path: str) -> None:
    with Llama(teacher_path, n_ctx=256, n_threads=1, verbose=False) as llama:
        whole = llama(PROMPT, max_tokens=12, temperature=0.0, echo=True)["choices"][0]["text"]
        chunks = list(llama(PROMPT, max_tokens=12, temperature=0.0, echo=True, stream=True))
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        answer = whole[len(PROMPT) :]
        cut = llama(PROMPT, max_tokens=12, temperature=0.0, stop=answer[4:6])["choices"][0]
        assert cut["text"] == answer[: answer.index(answer[4:6])] and cut["finish_reason"] == "stop"
        vectors = llama.create_embedding(["one", "two"])
        assert [len(item["embedding"]) for item in vectors["data"]] == [llama.n_embd()] * 2
        with pytest.raises(UsageError, match="logprobs"):
            llama(PROMPT, logprobs=1)
    with pytest.raises(UsageError, match="logits_all"):
        Llama(teacher_path, logits_all=True)


def test_conversations(thinking_path: str) -> None:
    with Llama(thinking_path, n_ctx=256, n_threads=1, verbose=False) as llama:
        messages = [{"role": "user", "content": "What is a vector?"}]
        chat = llama.create_chat_completion(messages, thinking=True, max_tokens=8, temperature=0.0)
        assert chat["choices"][0]["message"]["reasoning_content"]
        parts = list(
            llama.create_chat_completion(messages, thinking=True, max_tokens=8, temperature=0.0, stream=True)
        )
        assert parts[0]["choices"][0]["delta"] == {"role": "assistant"}
        thought = "".join(part["choices"][0]["delta"].get("reasoning_content", "") for part in parts)
        assert thought == chat["choices"][0]["message"]["reasoning_content"]


def test_the_documented_example_runs(
    teacher_path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = Path(__file__).resolve().parents[1] / "examples" / "answer.py"
    monkeypatch.setattr(sys, "argv", [str(example), teacher_path])
    runpy.run_path(str(example), run_name="__main__")
    printed = capsys.readouterr().out
    assert "What is a vector?" in printed and "ended by" in printed
