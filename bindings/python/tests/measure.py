"""Measures the package as a part of a process, and prints one PASS or MISS line per figure: python measure.py"""

import os
import signal
import threading
import time
from pathlib import Path

from craftsman_ultra import Model

TEACHER = Path(__file__).resolve().parents[3] / "fixtures" / "craftsman-mini"
LONG = 2048
"""Tokens of the prompt that is interrupted."""


def figure(passed: bool, name: str, value: str) -> None:
    """Print one figure. The line is read up to the first colon with a space behind it, so a name holds none."""
    assert ": " not in name, name
    print(f"{'PASS' if passed else 'MISS'} {name}: {value}", flush=True)


def interrupted(model: Model) -> None:
    """The time from a signal to the exception, against that of two layers and the look for signals."""
    with model.session(LONG) as session:
        start = time.perf_counter()
        session.append([20] * 256)
        layer = (time.perf_counter() - start) / model.n_layers
        sent, waits = 0.0, []

        def send() -> None:
            nonlocal sent
            sent = time.perf_counter()
            os.kill(os.getpid(), signal.SIGINT)

        for wait in (0.1, 0.13, 0.16, 0.19, 0.22):
            session.truncate(0)
            threading.Timer(wait, send).start()
            try:
                while True:
                    session.append([20] * LONG)
                    session.truncate(0)
            except KeyboardInterrupt:
                waits.append(time.perf_counter() - sent)
        waits.sort()
        median, allowed = waits[2], 0.050 + 2 * layer
        times = f"median {median * 1e3:.1f} ms, worst {waits[-1] * 1e3:.1f} ms"
        sentence = f"{times}, a layer of 256 tokens takes {layer * 1e3:.1f} ms"
        name = "from Ctrl-C to KeyboardInterrupt in Python, at most 50 ms and two layers"
        figure(median <= allowed, name, sentence)


def other_thread(model: Model) -> None:
    """How long another thread is kept waiting while the native part computes."""
    done, gaps = threading.Event(), []

    def turn() -> None:
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last - 0.001)
            last = now

    thread = threading.Thread(target=turn)
    with model.session(LONG) as session:
        thread.start()
        start = time.perf_counter()
        session.append([20] * (LONG - 1))
        took = time.perf_counter() - start
        done.set()
        thread.join()
    gaps.sort()
    median = gaps[len(gaps) // 2]
    sentence = f"{len(gaps)} turns in one call of {took:.2f} s, median delay {median * 1e3:.2f} ms"
    figure(len(gaps) > 50 * took, "another thread of Python runs while a prompt is read", sentence)


def main() -> None:
    """All figures."""
    # A process that was started in the background ignores the signal until it has a handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Model.open(TEACHER, threads=1, n_ctx=LONG) as model:
        interrupted(model)
        other_thread(model)


if __name__ == "__main__":
    main()
