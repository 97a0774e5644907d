"""Jobs of the command `bitnet` on several machines, over Ray Core.

A job is a command that takes ``--shard``: ``batch``, ``eval-gates``, ``eval fidelity``, ``verify``, ``quantize``,
``distill --sequential``. It is cut into many shards, and each free worker takes the next one, so that fast machines do more of
them::

    from craftsman_ultra.cluster import Job, run

    job = Job(["batch", "-m", "/models/student.gguf", "-i", "/data/prompts.jsonl"], out="/data/answers.jsonl", shards=60)
    report = run(job, workers=8, per_worker={"num_cpus": 4}, address="auto")

Every worker runs the program on files that its own machine has at these paths; only parts travel. A part that has arrived is
not made again, so the same call resumes a job whose driver was killed. Ray (``pip install ray``) and this package have to be on
every machine. As a program, ``python cluster.py --help``, this file needs Ray alone.

``quantize --method gptq`` goes layer by layer: every shard solves its share of a layer, all workers get all parts of it, and
the next layer begins. It takes one shard per worker. Behind the last layer the driver makes the student, so that it needs the
model too.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_FAILURES = 3
"""A shard whose command fails this often is recorded as failed, and the others go on."""
MAX_LOSSES = 10
"""A shard is recorded as failed when this many workers died with it."""
MAX_STARTS = 5
"""A worker is given up when Ray could not start it this often, one time after the other."""
RETRY_S = 1.0
"""Seconds until a worker that has not started is asked again."""
PATIENCE_S = 60.0
"""A job of which no worker has started for so many seconds says so."""
OBJECT_STORE_BYTES = 80 << 20
"""Memory for objects of a Ray that is started here: parts are small."""
FORGET_S = 10.0
"""Seconds that workers have to remove what they keep, behind the end of the job."""
LOOK_S = 0.05
"""Seconds between two looks for the part of a layer."""
MERGED = {0, 3}
"""Exit codes of a merge that is complete: done, and done with a gate that failed. 1 may also be a full disk."""

_log = logging.getLogger("craftsman_ultra.cluster")


class ClusterError(Exception):
    """A job that cannot go on, as one sentence."""


@dataclass(frozen=True)
class Job:
    """A command of `bitnet`, cut into shards."""

    command: Sequence[str]
    """The arguments of `bitnet`, without ``--shard``, ``--part`` and those that name the output; paths are absolute."""
    out: str | os.PathLike[str]
    """The output of `bitnet merge`; the student of a calibration."""
    shards: int
    """How many shards there are; some per worker, so that the last ones end together. As many as workers for a calibration."""
    bitnet: str = "bitnet"
    """The program, on every machine."""

    @property
    def is_calibration(self) -> bool:
        """Whether the shards meet behind every layer."""
        words = [word for argument in self.command for word in os.fspath(argument).split("=", 1)]
        return words[:1] == ["quantize"] and ("--method", "gptq") in zip(words, words[1:])

    @property
    def folder(self) -> Path:
        """Where the parts are kept until all of them are there."""
        return Path(f"{os.fspath(self.out)}.parts")


@dataclass
class Report:
    """What a run did."""

    made: int = 0
    """Shards whose part was made by this run."""
    found: int = 0
    """Shards whose part was there before."""
    redone: int = 0
    """Shards that were begun again, because a worker died or the command failed."""
    failed: dict[int, str] = field(default_factory=dict)
    """Shards that were given up, with the last sentence of the command."""
    seconds: float = 0.0
    start_s: float = 0.0
    """Seconds until the first worker was ready, the connection to Ray included."""
    busy_s: float = 0.0
    """Seconds inside the command, of the parts that were made."""
    cpu_s: float = 0.0
    """Processor seconds of these commands, which other programs on the hosts do not make longer."""
    merge_s: float = 0.0
    """Seconds of `bitnet merge`, and of making the student of a calibration."""
    hosts: dict[str, int] = field(default_factory=dict)
    """Parts that each host made."""
    code: int = 0
    """The exit code of `bitnet merge`, which is that of the job in one piece: 1 for a batch with lines that cannot be
    answered and for a model with defects, 3 for a gate that failed."""
    sentence: str = ""
    """The last line that `bitnet merge` printed about such a code."""


def run(
    job: Job,
    workers: int,
    per_worker: Mapping[str, Any] | None = None,
    *,
    address: str | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Make all parts of a job on the cluster, and join them into its output.

    Args:
        workers: How many shards run at the same time.
        per_worker: What Ray holds for each of them, for example ``{"num_cpus": 4, "memory": 12 << 30}``.
        address: The cluster, for example ``auto``; without it, and without a Ray in this process, one is started here.
        on_progress: Gets the number of parts that are there, and that of all shards.

    Raises ClusterError for an output that exists, for parts of another job, for parts that contradict each other, for workers
    that cannot start, and for a merge that fails. A job with failed shards is not joined; its report names them. The folder of
    the parts is removed when they are joined.
    """
    start = time.monotonic()
    report = Report()
    _refuse_existing(job)
    _claim(job)
    report.found = len(list(job.folder.glob("*.part")))
    crew = None
    while not report.failed and (todo := _todo(job)):
        crew = crew or _Crew(job, workers, dict(per_worker or {"num_cpus": 1}), address)
        crew.work(todo, report, on_progress)
    if not report.failed:
        _merge(job, report)
        if crew is not None:
            crew.forget()
    report.seconds = time.monotonic() - start
    return report


class Worker:
    """Runs shards, one at a time, on the machine where Ray has put it."""

    def __init__(self, program: str, command: list[str]) -> None:
        self._program = program
        self._command = command

    def ready(self) -> list[str]:
        """Answers as soon as this worker is alive. It keeps no parts."""
        return []

    def make(self, shard: int, shards: int) -> tuple[str, float, float, bytes]:
        """The host, the seconds, the processor seconds and the part of a shard.

        Raises RuntimeError with the last line of a command that fails.
        """
        start, before = time.monotonic(), _processor_seconds()
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "shard.part"
            command = [self._program, *self._command, "--shard", f"{shard}/{shards}", "--part", str(part)]
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=_end_with_parent()
            )
            # Lines of a batch that cannot be answered are in its part, and the command ends with 1.
            if not part.is_file():
                lines = done.stderr.decode(errors="replace").strip().splitlines()
                raise RuntimeError(lines[-1] if lines else f"{self._program} ended with {done.returncode}")
            used = _processor_seconds() - before
            return socket.gethostname(), time.monotonic() - start, used, part.read_bytes()


class RoundWorker:
    """Solves shares of the layers of a calibration, one layer after the other, on the machine where Ray has put it.

    The program runs on between the layers and waits for the parts of the others. Its folder, which the workers of a machine
    share, stays when it is killed, so that the next one on this machine goes on from there.
    """

    def __init__(self, program: str, command: list[str], name: str) -> None:
        self._command = [program, *command]
        self._folder = Path(tempfile.gettempdir()) / name
        self._process: subprocess.Popen[bytes] | None = None
        self._share = ""
        self._told_s = 0.0

    def ready(self) -> list[str]:
        """The parts that the folder has."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return [path.name for path in self._folder.glob("*.part") if path.is_file()]

    def give(self, name: str, part: bytes) -> None:
        """Puts a part of another worker into the folder."""
        if not (self._folder / name).is_file():
            _write(self._folder / name, part)

    def make(self, shard: int, shards: int, known: list[str]) -> tuple[str, float, float, bytes]:
        """The host, the seconds, the processor seconds, and a part of the shard that is not among those known.

        Raises RuntimeError where a known part has not arrived, and with the last line of a command that ends without a part.
        """
        if lost := [name for name in known if not (self._folder / name).is_file()]:
            raise RuntimeError(f"{socket.gethostname()} lacks {lost[0]}, which it was given")
        start = time.monotonic()
        log = self._folder / f"{shard}-of-{shards}.log"
        if self._process is None or self._share != f"{shard}/{shards}":
            self._begin(f"{shard}/{shards}", log)
        while True:
            assert self._process is not None
            # A process that has ended has no times once `poll` has seen its end.
            used = _seconds_of(self._process.pid)
            code = self._process.poll()
            if new := [part for part in _parts_of(self._folder, shard, shards) if part.name not in known]:
                used, self._told_s = max(0.0, used - self._told_s), used
                return socket.gethostname(), time.monotonic() - start, used, new[0].read_bytes()
            if code is not None:
                self._process = None
                lines = log.read_text(errors="replace").strip().splitlines()
                raise RuntimeError(lines[-1] if lines else f"{self._command[0]} ended with {code}")
            time.sleep(LOOK_S)

    def forget(self) -> None:
        """Ends the program and removes the folder."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, share: str, log: Path) -> None:
        self._end()
        self._share, self._told_s = share, 0.0
        command = [*self._command, "--shard", share, "--rounds", str(self._folder), "--wait"]
        with log.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                preexec_fn=_end_with_parent(),
            )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _parts_of(folder: Path, shard: int, shards: int) -> list[Path]:
    """The parts of a shard of a calibration, by layer."""
    paths = [path for path in folder.glob(f"layer-*.{shard}-of-{shards}.part") if path.is_file()]
    return sorted(paths, key=lambda path: _layer(path.name))


def _layer(name: str) -> int:
    return int(name.removeprefix("layer-").split(".", 1)[0])


def _seconds_of(process: int) -> float:
    """Processor seconds of a program that runs; 0 where the system does not tell."""
    try:
        fields = (Path("/proc") / str(process) / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _processor_seconds() -> float:
    """Processor seconds of the programs that this process has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _end_with_parent() -> Callable[[], object] | None:
    """What the child calls before the command, so that the command ends when its worker is killed.

    The function of the C library is looked up here: between fork and exec a child must not import, because another thread may
    have held the lock of the import when the process was copied.
    """
    if sys.platform != "linux":
        return None
    prctl, kill = ctypes.CDLL(None).prctl, int(signal.SIGKILL)
    return lambda: prctl(1, kill)


@dataclass(eq=False)
class _Member:
    """A worker as the driver sees it."""

    actor: Any
    failed_starts: int = 0
    """Starts that failed since it last was ready."""
    ask_at: float = 0.0
    holds: set[str] = field(default_factory=set)
    """The parts of a calibration that it has."""
    shard: int = 0
    """The shard that it had last."""


class _Crew:
    """Workers, and the shards that they have."""

    def __init__(self, job: Job, workers: int, per_worker: dict[str, Any], address: str | None) -> None:
        self._begin = time.monotonic()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray: Any = importlib.import_module("ray")
        if not self._ray.is_initialized():
            here: dict[str, Any] = {} if address else {"include_dashboard": False}
            if not address and not job.is_calibration:
                here["object_store_memory"] = OBJECT_STORE_BYTES
            self._ray.init(address=address, log_to_driver=False, **here)
        self._job = job
        # A lost shard is given out again here, to any worker, rather than waiting for the same one.
        kind = RoundWorker if job.is_calibration else Worker
        actor = self._ray.remote(kind).options(max_restarts=-1, max_task_retries=0, **per_worker)
        command = [os.fspath(argument) for argument in job.command]
        given = (job.bitnet, command, f"bitnet-{_id(job)}") if job.is_calibration else (job.bitnet, command)
        self._wants = per_worker
        self._absent = [_Member(actor.remote(*given)) for _ in range(workers)]
        """Workers that are to be asked whether they are ready."""
        self._starting: dict[Any, _Member] = {}
        self._working: dict[Any, tuple[_Member, int]] = {}
        self._idle: list[_Member] = []
        self._waiting_since: float | None = time.monotonic()
        """The begin, until a worker starts or the wait was told."""

    def work(self, todo: list[int], report: Report, on_progress: Callable[[int, int], object] | None) -> None:
        """Make the parts of all shards in `todo`."""
        failures = {shard: 0 for shard in todo}
        losses = {shard: 0 for shard in todo}
        left = todo[::-1]
        while left or self._working:
            while left and self._idle:
                self._begin_next(left)
            for ref in self._ended():
                if (starting := self._starting.pop(ref, None)) is not None:
                    self._start(starting, ref)
                    if self._idle and report.start_s == 0.0:
                        report.start_s = time.monotonic() - self._begin
                    continue
                member, shard = self._working.pop(ref)
                try:
                    host, seconds, used, part = self._ray.get(ref)
                except self._ray.exceptions.RayTaskError as error:
                    self._idle.append(member)
                    member.holds.clear()
                    failures[shard] += 1
                    again = failures[shard] < MAX_FAILURES
                    reason = str(error.cause)
                except self._ray.exceptions.RayError as error:
                    # The worker is used again when Ray has started it elsewhere.
                    member.shard = 0
                    self._absent.append(member)
                    losses[shard] += 1
                    again = losses[shard] < MAX_LOSSES
                    reason = f"{losses[shard]} workers died with it: {error}".splitlines()[0]
                else:
                    self._idle.append(member)
                    member.holds |= {_keep(self._job, shard, part, host)}
                    report.made += 1
                    report.busy_s += seconds
                    report.cpu_s += used
                    report.hosts[host] = report.hosts.get(host, 0) + 1
                    if on_progress is not None:
                        on_progress(report.found + report.made, self._job.shards * _rounds(self._job))
                    continue
                if again:
                    report.redone += 1
                    left.append(shard)
                else:
                    report.failed[shard] = reason

    def _begin_next(self, left: list[int]) -> None:
        """Gives the next shard to a worker: in a calibration the shard that the worker had before, whose program still runs."""
        same = [member for member in self._idle if member.shard in left]
        member = same[-1] if same else self._idle[-1]
        self._idle.remove(member)
        shard = member.shard if same else left[-1]
        left.remove(shard)
        if not self._job.is_calibration:
            call = member.actor.make.remote(shard, self._job.shards)
        else:
            # Calls of one worker are made in their order.
            known = sorted(self._job.folder.glob("*.part"), key=lambda path: _layer(path.name))
            for part in known:
                if part.name not in member.holds:
                    # Bytes of one part at a time are in memory. A worker that is lost on the way fails at `make`.
                    self._ray.wait([member.actor.give.remote(part.name, part.read_bytes())])
                    member.holds.add(part.name)
            member.shard = shard
            call = member.actor.make.remote(shard, self._job.shards, [part.name for part in known])
        self._working[call] = (member, shard)

    def forget(self) -> None:
        """Lets the workers of a calibration remove what they keep."""
        if self._job.is_calibration:
            known = [member.actor.forget.remote() for member in [*self._idle, *self._absent, *self._starting.values()]]
            self._ray.wait(known, num_returns=len(known), timeout=FORGET_S)

    def _ended(self) -> list[Any]:
        """Asks the workers that are absent, and waits for a call that has ended; none after a second."""
        now = time.monotonic()
        for member in [member for member in self._absent if member.ask_at <= now]:
            self._absent.remove(member)
            self._starting[member.actor.ready.remote()] = member
        if self._waiting_since is not None and now - self._waiting_since > PATIENCE_S:
            self._waiting_since = None
            _log.warning("no worker has started in %.0f s; each of them wants %s of the cluster", PATIENCE_S, self._wants)
        if not (known := [*self._starting, *self._working]):
            time.sleep(RETRY_S / 10)
            return []
        done, _ = self._ray.wait(known, num_returns=1, timeout=RETRY_S)
        return list(done)

    def _start(self, member: _Member, ref: Any) -> None:
        """Takes a worker that is ready. Another one is asked again, unless it has failed to start too often.

        Raises ClusterError when no worker is left.
        """
        try:
            member.holds = set(self._ray.get(ref))
        except self._ray.exceptions.ActorUnavailableError:
            # Ray is starting it, perhaps on a node that has yet to come.
            self._absent.append(member)
        except self._ray.exceptions.RayError as error:
            member.failed_starts += 1
            if member.failed_starts < MAX_STARTS:
                self._absent.append(member)
            elif not (self._absent or self._starting or self._working or self._idle):
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
                raise ClusterError(f"no worker could be started, each was tried {MAX_STARTS} times: {reason}") from error
        else:
            member.failed_starts = 0
            self._waiting_since = None
            self._idle.append(member)
        member.ask_at = time.monotonic() + RETRY_S


def _refuse_existing(job: Job) -> None:
    if os.path.lexists(job.out):
        raise ClusterError(f"{os.fspath(job.out)} exists: remove it, or name another output")


def _claim(job: Job) -> None:
    """Write the job beside its parts, or compare it with the one whose parts are there."""
    told: dict[str, Any] = {"command": [os.fspath(argument) for argument in job.command], "shards": job.shards}
    name = job.folder / "job.json"
    if job.folder.is_dir() and any(path.suffix != ".new" for path in job.folder.iterdir()):
        found = json.loads(name.read_text()) if name.is_file() else None
        if found is None or {key: found.get(key) for key in told} != told:
            raise ClusterError(f"{job.folder} has the parts of another job ({found}): remove it, or name another output")
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    _write(name, json.dumps({**told, "id": secrets.token_hex(8)}).encode())


def _id(job: Job) -> str:
    """The name that workers give to what they keep of this job, and of no other one."""
    return str(json.loads((job.folder / "job.json").read_text()).get("id", ""))


def _part(job: Job, shard: int, layer: int | None = None) -> Path:
    return job.folder / f"{'' if layer is None else f'layer-{layer}.'}{shard}-of-{job.shards}.part"


def _rounds(job: Job) -> int:
    """How many parts each shard has: in a calibration one for each layer with something to solve; 1 while none has arrived."""
    first = next(job.folder.glob("*.part"), None) if job.is_calibration else None
    if first is None:
        return 1
    with first.open("rb") as file:
        return int(_manifest(file.readline())["rounds"])


def _todo(job: Job) -> list[int]:
    """The shards whose part is to be made next: of the job, or of the layer that a calibration has reached."""
    shards = range(1, job.shards + 1)
    if not job.is_calibration:
        return [shard for shard in shards if not _part(job, shard).is_file()]
    layers = {_layer(path.name) for path in job.folder.glob("*.part")}
    for layer in sorted(layers):
        if todo := [shard for shard in shards if not _part(job, shard, layer).is_file()]:
            return todo
    return list(shards) if not layers or len(layers) < _rounds(job) else []


def _keep(job: Job, shard: int, part: bytes, host: str) -> str:
    """Put a part in place, and return its name.

    A second copy must be equal, and all parts must be of one job, in a calibration those of one layer.
    """
    manifest = _manifest(part)
    path = _part(job, shard, manifest["round"]["layer"] if job.is_calibration else None)
    made_by = job.folder / "hosts.json"
    hosts: dict[str, str] = json.loads(made_by.read_text()) if made_by.is_file() else {}
    if path.is_file():
        if path.read_bytes() != part:
            raise ClusterError(
                f"{path}, which {hosts.get(path.name, 'another host')} made, and the same shard from {host} differ: "
                "one of them computed wrongly; remove the file, and take the host whose results change out of the cluster"
            )
        return path.name
    for other, other_host in hosts.items():
        first = job.folder / other
        if first.is_file() and (not job.is_calibration or _layer(other) == _layer(path.name)):
            with first.open("rb") as file:
                known = _manifest(file.readline())
            if known != manifest:
                raise ClusterError(
                    f"shard {shard} from {host} is of another job than {first}, which {other_host} made: give all hosts the "
                    f"same model and inputs, or remove {job.folder}"
                )
            break
    _write(path, part)
    _write(made_by, json.dumps({**hosts, path.name: host}).encode())
    return path.name


def _manifest(part: bytes) -> Any:
    return json.loads(part.split(b"\n", 1)[0])["manifest"]


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, whatever is killed."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _merge(job: Job, report: Report) -> None:
    """Join the parts, and remove them when their output is complete."""
    _refuse_existing(job)
    out = os.fspath(job.out)
    if job.is_calibration:
        command = [*map(os.fspath, job.command), "--rounds", str(job.folder), "--out", out]
    else:
        command = ["merge", out, *(str(_part(job, shard)) for shard in range(1, job.shards + 1))]
    start = time.monotonic()
    done = subprocess.run([job.bitnet, *command], stdin=subprocess.DEVNULL, capture_output=True)
    report.merge_s = time.monotonic() - start
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    report.code = done.returncode
    if done.returncode != 0:
        report.sentence = lines[-1] if lines else f"bitnet {command[0]} ended with {done.returncode}"
        if done.returncode < 0 or not os.path.lexists(job.out):
            raise ClusterError(report.sentence)
    if done.returncode in MERGED:
        shutil.rmtree(job.folder)


def main() -> int:
    """The command line: exit code 1 when a shard failed, that of the merge otherwise."""
    parser = argparse.ArgumentParser(description="A job of bitnet on a Ray cluster; the command follows behind --.")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--num-cpus", type=float, default=1.0, help="cores that each worker holds")
    parser.add_argument("--bitnet", default="bitnet")
    parser.add_argument("--address", help="the cluster, for example auto; without it Ray is started here")
    parser.add_argument("command", nargs="+", help="for example: batch -m STUDENT -i PROMPTS")
    options = parser.parse_args()
    job = Job(options.command, options.out, options.shards, options.bitnet)
    # Ray prints what happens to its nodes, at any time; standard output is for the report alone.
    stdout, sys.stdout = sys.stdout, sys.stderr

    def show(done: int, shards: int) -> None:
        print(f"{done}/{shards}", file=sys.stderr, flush=True)

    try:
        report = run(job, options.workers, {"num_cpus": options.num_cpus}, address=options.address, on_progress=show)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(vars(report)), file=stdout, flush=True)
    for shard, reason in report.failed.items():
        print(f"error: shard {shard}/{job.shards} was given up: {reason}", file=sys.stderr)
    if report.code != 0:
        print(report.sentence, file=sys.stderr)
    return 1 if report.failed else report.code


if __name__ == "__main__":
    sys.exit(main())
