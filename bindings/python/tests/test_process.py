"""The package as a part of a process: other threads, signals, pickling, memory."""

import os
import pickle
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from craftsman_ultra import CraftsmanError, Model, verify


def test_another_thread_runs_while_an_answer_is_made(teacher: Model) -> None:
    turns, done = 0, threading.Event()

    def turn() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0)

    with teacher.session() as session:
        thread = threading.Thread(target=turn)
        session.generate("A vector is", max_tokens=1)
        thread.start()
        before = turns
        session.append(session.tokens[:1] * 600)
        counted = turns - before
        done.set()
        thread.join()
    assert counted > 50, "one call into the native part must not stop other threads"


def test_a_signal_ends_an_answer_and_the_session_goes_on(teacher: Model) -> None:
    pieces: list[str] = []

    def once(piece: str) -> None:
        if len(pieces) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        pieces.append(piece)

    # A process that was started in the background ignores the signal until it has a handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with teacher.session(4096) as session:
        with pytest.raises(KeyboardInterrupt):
            session.generate("A vector is", max_tokens=4000, detect_loops=False, on_text=once)
        assert 0 < len(session.tokens) < 2000
        # A signal while a prompt is read: the call is inside of the native part all the time.
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            while True:
                session.truncate(0)
                session.append([20] * 4000)
        assert session.generate("A vector is", max_tokens=4, temperature=0.0).text
    signal.signal(signal.SIGINT, before)


def test_an_exception_of_a_callback_stops_a_job(teacher_path: str) -> None:
    def fail(stage: str, done: int, total: int) -> None:
        raise ZeroDivisionError(stage)

    with pytest.raises(ZeroDivisionError, match="verifying"):
        verify(teacher_path, on_progress=fail)


def test_a_pickled_model_opens_again_and_refuses_a_changed_file(student_path: str, tmp_path: Path) -> None:
    path = tmp_path / "student.gguf"
    shutil.copy(student_path, path)
    with Model.open(path, threads=1, n_ctx=128) as model, model.session() as session:
        text = session.generate("A vector is", max_tokens=8, temperature=0.0).text
        pickled = pickle.dumps(model)
    assert len(pickled) < 2000
    with pickle.loads(pickled) as again, again.session() as session:
        assert (again.threads, again.n_ctx) == (1, 128)
        assert session.generate("A vector is", max_tokens=8, temperature=0.0).text == text
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(CraftsmanError, match="has the identity"):
        pickle.loads(pickled)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_thousand_models_leave_no_memory_behind(tiny_path: str) -> None:
    def cycle() -> None:
        with Model.open(tiny_path, threads=2, n_ctx=64) as model, model.session() as session:
            session.generate("ab", max_tokens=2)

    for _ in range(100):
        cycle()
    before = resident_bytes()
    for _ in range(1000):
        cycle()
    assert resident_bytes() - before < 8 << 20
