"""Answers: the text of the command line, streams, parts, and what a session remembers."""

import asyncio
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from craftsman_ultra import ContextFullError, CraftsmanError, Model, UsageError
from craftsman_ultra.compat import Llama

PROMPT = "A vector is"
QUESTION = [{"role": "user", "content": "What is a vector?"}]


def run(bitnet: str, model: str, *args: str) -> str:
    """What `bitnet run` prints."""
    command = [bitnet, "run", model, "--temp", "0", "--threads", "1", "-n", "40", *args]
    done = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    return done.stdout.decode().removesuffix("\n")


@pytest.mark.parametrize("which", ["teacher_path", "student_path"])
def test_a_greedy_answer_is_that_of_the_command_line(
    bitnet: str, which: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(which)
    raw = run(bitnet, path, "--raw", "-p", PROMPT)
    chat = run(bitnet, path, "--think", "off", "-p", "What is a vector?")
    assert raw and chat
    with Model.open(path, threads=2) as model, model.session() as session:
        assert session.generate(PROMPT, max_tokens=40, temperature=0.0).text == raw
        assert session.generate(QUESTION, thinking=False, max_tokens=40, temperature=0.0).text == chat
    with Llama(path, n_threads=1, verbose=False) as llama:
        assert llama(PROMPT, max_tokens=40, temperature=0.0)["choices"][0]["text"] == raw
        answer = llama.create_chat_completion(QUESTION, thinking=False, max_tokens=40, temperature=0.0)
        assert answer["choices"][0]["message"]["content"] == chat


def test_streams_give_the_text_of_the_whole_answer(teacher: Model) -> None:
    with teacher.session() as session:
        whole = session.generate(PROMPT, max_tokens=24, temperature=0.0)
        with session.stream(PROMPT, max_tokens=24, temperature=0.0) as stream:
            pieces = list(stream)
            assert len(pieces) > 3 and "".join(pieces) == whole.text
            assert stream.result().tokens == whole.tokens

        async def collect() -> list[str]:
            return [piece async for piece in session.stream(PROMPT, max_tokens=24, temperature=0.0)]

        assert asyncio.run(collect()) == pieces
        seen: list[str] = []
        session.generate(PROMPT, max_tokens=24, temperature=0.0, on_text=seen.append)
        assert seen == pieces


def test_a_closed_stream_ends_its_answer_and_frees_the_session(teacher: Model) -> None:
    with teacher.session() as session:
        stream = session.stream(PROMPT, max_tokens=2000, temperature=0.0, detect_loops=False)
        first = next(stream)
        with pytest.raises(UsageError, match="the session is answering"):
            session.generate(PROMPT)
        with pytest.raises(UsageError, match="has not ended"):
            stream.result()
        # A raw prompt begins with [gMASK]<sop>; tokens are taken as they are.
        ids = teacher.tokenizer.encode(PROMPT)
        assert session.count_tokens(ids) == len(ids) > 1
        assert session.count_tokens(PROMPT) == len(ids) + 2
        stream.close()
        result = stream.result()
        assert result.prompt_tokens == len(ids) + 2
        assert result.reason in ("interrupt", "cancelled") and result.text.startswith(first)
        assert len(result.tokens) < 2000
        assert session.generate(PROMPT, max_tokens=4, temperature=0.0).text


def test_a_stream_that_another_thread_closes_ends_without_a_failure(teacher: Model) -> None:
    with teacher.session() as session, ThreadPoolExecutor(1) as threads:
        for _ in range(20):
            stream = session.stream(PROMPT, max_tokens=2000, temperature=0.0, detect_loops=False)
            next(stream)
            read = threads.submit(lambda stream=stream: "".join(stream))
            stream.close()
            read.result()
            assert stream.result().reason in ("interrupt", "cancelled")


def test_a_session_that_another_thread_closes_says_so(teacher: Model) -> None:
    session = teacher.session(2048)
    with ThreadPoolExecutor(1) as threads:
        begun = Event()

        def append() -> None:
            begun.set()
            while True:
                session.append([20] * 2048)
                session.truncate(0)

        appended = threads.submit(append)
        begun.wait()
        time.sleep(0.05)
        session.close()
        with pytest.raises(UsageError, match="the session is closed"):
            appended.result()
    with pytest.raises(UsageError, match="the session is closed"):
        session.count_tokens(PROMPT)


def test_a_message_of_an_unknown_role_is_refused(teacher: Model) -> None:
    with teacher.session(64) as session, pytest.raises(UsageError, match='its role is "robot"'):
        session.generate([*QUESTION, {"role": "robot", "content": "hi"}])


def test_a_cancelled_task_ends_its_answer(teacher: Model) -> None:
    async def cancelled() -> None:
        stream = session.stream(PROMPT, max_tokens=3000, temperature=0.0, detect_loops=False)
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in stream:
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(stream.result().tokens) < 3000

    with teacher.session() as session:
        asyncio.run(cancelled())
        assert session.generate(PROMPT, max_tokens=4, temperature=0.0).text


def test_sessions_of_threads_do_not_meet(teacher: Model) -> None:
    def text(_: int) -> str:
        with teacher.session(64) as session:
            return session.generate(PROMPT, max_tokens=16, temperature=0.0).text

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(text, range(8)))) == 1


def test_a_thought_is_kept_apart(thinking_path: str) -> None:
    with Model.open(thinking_path, threads=1) as model, model.session() as session:
        assert model.render(QUESTION, thinking=True).endswith("<|assistant|><think>")
        thought = session.generate(QUESTION, thinking=True, max_tokens=6, temperature=0.0)
        assert thought.reasoning
        first = next(session.events(QUESTION, thinking=True, max_tokens=6, temperature=0.0))
        assert first.kind == "reasoning" and thought.reasoning.startswith(first.text)
        direct = session.generate(QUESTION, thinking=False, max_tokens=6, temperature=0.0)
        assert direct.text and not direct.reasoning


def test_stops_and_seeds(teacher: Model) -> None:
    with teacher.session() as session:
        whole = session.generate(PROMPT, max_tokens=24, temperature=0.0)
        stop = whole.text[6:9]
        cut = session.generate(PROMPT, max_tokens=24, temperature=0.0, stop=["\a", stop])
        assert (cut.text, cut.reason, cut.stopped_by) == (whole.text[: whole.text.index(stop)], "stop", stop)
        drawn = {seed: session.generate(PROMPT, max_tokens=24, seed=seed).text for seed in (1, 2, 3)}
        assert session.generate(PROMPT, max_tokens=24, seed=2).text == drawn[2] and len(set(drawn.values())) > 1
        assert session.generate(PROMPT, max_tokens=24, temperature=0.0).computed_tokens == 1, "the prompt is held"


def test_single_steps_have_the_logits_of_the_model(teacher: Model) -> None:
    tokens = teacher.tokenizer.encode("A vector is an array that grows")
    with teacher.session() as session, teacher.session() as other:
        session.append(tokens)
        logits = list(session.logits())
        assert len(logits) == teacher.vocab_size
        other.append(tokens[:3])
        saved = other.save()
        other.append(tokens[3:])
        assert list(other.logits()) == logits
        session.load(saved)
        assert session.tokens == tokens[:3]
        session.append(tokens[3:])
        assert list(session.logits()) == logits
        session.truncate(2)
        with pytest.raises(UsageError, match="append tokens first"):
            session.logits()
        with pytest.raises(CraftsmanError, match="damaged"):
            session.load(saved[:-1] + bytes([saved[-1] ^ 1]))


def test_wrong_calls_are_one_sentence(teacher: Model, teacher_path: str, tmp_path: object) -> None:
    with pytest.raises(CraftsmanError, match="nowhere"):
        Model.open(f"{tmp_path}/nowhere.gguf")
    with pytest.raises(UsageError, match="threads = 0"):
        Model.open(teacher_path, threads=0)
    with pytest.raises(UsageError, match="layout"):
        Model.open(teacher_path, layout="best")  # type: ignore[arg-type]
    with pytest.raises(CraftsmanError, match="memory|bytes"):
        Model.open(teacher_path, memory=1000)
    with teacher.session(16) as session:
        with pytest.raises(ContextFullError, match="do not fit the context of 16"):
            session.generate("A vector is " * 20)
        with pytest.raises(CraftsmanError, match="temperature"):
            session.generate(PROMPT, temperature=-1.0)
        with pytest.raises(UsageError, match="temprature"):
            session.generate(PROMPT, temprature=0.5)  # type: ignore[call-arg]
        with pytest.raises(UsageError, match="messages is empty"):
            session.generate([])
        with pytest.raises(CraftsmanError, match="no tokens|not in the vocabulary"):
            session.append([10**6])
    with pytest.raises(UsageError, match="the session is closed"):
        session.generate(PROMPT)
