"""What the cluster adapter keeps, without a cluster; `cargo xtask prove cluster` runs it on one."""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from craftsman_ultra import cluster
from craftsman_ultra.cluster import ClusterError, Job, _claim, _keep, _part, run


def part(model: str, shard: int, content: str) -> bytes:
    """The beginning of a part."""
    header = {"part": 1, "shard": f"{shard}/3", "units": 3, "manifest": {"model": model}}
    return json.dumps(header).encode() + b"\n" + content.encode()


def test_a_part_is_there_once_and_a_second_copy_has_to_be_equal(tmp_path: Path) -> None:
    job = Job(["batch"], tmp_path / "out.jsonl", 3)
    job.folder.mkdir()
    _keep(job, 1, part("a", 1, "one"), "north")
    _keep(job, 1, part("a", 1, "one"), "south")
    assert _part(job, 1).read_bytes() == part("a", 1, "one")
    with pytest.raises(ClusterError, match="north made, and the same shard from south differ"):
        _keep(job, 1, part("a", 1, "two"), "south")
    assert _part(job, 1).read_bytes() == part("a", 1, "one")
    assert sorted(path.name for path in job.folder.iterdir()) == ["1-of-3.part", "hosts.json"]


def test_a_host_with_another_model_is_named(tmp_path: Path) -> None:
    job = Job(["batch"], tmp_path / "out.jsonl", 3)
    job.folder.mkdir()
    _keep(job, 1, part("a", 1, "one"), "north")
    with pytest.raises(ClusterError, match="shard 2 from south is of another job than .*1-of-3.part, which north made"):
        _keep(job, 2, part("b", 2, "two"), "south")
    assert not _part(job, 2).exists()


def test_parts_of_another_job_are_refused(tmp_path: Path) -> None:
    job = Job(["batch", "-m", "a"], tmp_path / "out.jsonl", 3)
    _claim(job)
    _claim(Job(["batch", "-m", Path("a")], tmp_path / "out.jsonl", 3))
    for other in (Job(["batch", "-m", "b"], job.out, 3), Job(job.command, job.out, 4)):
        with pytest.raises(ClusterError, match="has the parts of another job .*remove it"):
            _claim(other)
    (job.folder / "job.json").unlink()
    (job.folder / "1-of-3.part").write_bytes(part("a", 1, "one"))
    with pytest.raises(ClusterError, match="another job .None."):
        _claim(job)


class Ray:
    """What the adapter uses of Ray, in this process: a call has ended when it is made."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                self.cause = cause

        class ActorUnavailableError(RayError):
            pass

    def __init__(self) -> None:
        self.begun = 0
        self.unready: list[Exception] = []
        """What the next questions to workers that start end with; the last one stays."""
        self.lost: set[int] = set()
        """The calls of `make`, counted from 1, in which the worker dies; another one takes its place."""
        self.makes = 0
        self.actors: list[Any] = []

    def is_initialized(self) -> bool:
        return True

    def remote(self, kind: type) -> Any:
        def method(place: list[Any], name: str, given: tuple[object, ...]) -> Any:
            def call(*args: object) -> object:
                self.begun += 1
                error = self.unready[0] if name == "ready" and self.unready else None
                self.unready = self.unready[1:] or self.unready
                self.makes += name == "make"
                if name == "make" and self.makes in self.lost:
                    if kind is cluster.RoundWorker:
                        place[0]._end()
                    place[0] = kind(*given)
                    self.actors.append(place[0])
                    return Ray.exceptions.RayError("the worker died")
                try:
                    return error or getattr(place[0], name)(*args)
                except Exception as failure:
                    return Ray.exceptions.RayTaskError(failure)

            return SimpleNamespace(remote=lambda *args: Call(call(*args)))

        def create(*args: object) -> Any:
            place = [kind(*args)]
            self.actors += place
            methods = ("ready", "make", "give", "forget")
            return SimpleNamespace(**{name: method(place, name, args) for name in methods})

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=create))

    def wait(self, calls: list["Call"], **_: object) -> tuple[list["Call"], list["Call"]]:
        return calls[:1], calls[1:]

    def get(self, call: "Call") -> object:
        if isinstance(call.result, Exception):
            raise call.result
        return call.result


class Call:
    """A call that has ended."""

    def __init__(self, result: object) -> None:
        self.result = result


PROGRAM = """#!{python}
import json, pathlib, sys
arguments = sys.argv[1:]
if arguments[0] == "merge":
    out, *parts = map(pathlib.Path, arguments[1:])
    if {code} != 4:
        out.write_bytes(b"".join(path.read_bytes() for path in parts))
    sys.exit("a disk is full" if {code} else 0) if {code} != 3 else sys.exit(3)
shard = arguments[arguments.index("--shard") + 1]
header = {{"part": 1, "shard": shard, "manifest": {{"job": "batch"}}}}
pathlib.Path(arguments[-1]).write_text(json.dumps(header) + "\\n")
"""


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    """A Ray of one process, without waits between questions."""
    ray = Ray()
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    monkeypatch.setattr(cluster, "RETRY_S", 0.0)
    (tmp_path / "host").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "host"))
    yield ray
    for actor in ray.actors:
        if isinstance(actor, cluster.RoundWorker):
            actor.forget()


def job_in(folder: Path, code: int = 0) -> Job:
    """A job of four shards, whose merge ends with `code`; 4 writes no output."""
    program = folder / "bitnet"
    program.write_text(PROGRAM.format(python=sys.executable, code=code))
    program.chmod(0o755)
    return Job(["batch"], folder / "out.jsonl", 4, str(program))


ROUNDS = """#!{python}
import json, pathlib, sys, time
arguments = sys.argv[1:]
value = lambda name: arguments[arguments.index(name) + 1]
rounds = pathlib.Path(value("--rounds"))
if "--out" in arguments:
    parts = [rounds / f"layer-{{layer}}.{{shard}}-of-3.part" for layer in (0, 1, 10) for shard in (1, 2, 3)]
    pathlib.Path(value("--out")).write_bytes(b"".join(part.read_bytes() for part in parts))
    sys.exit()
shard, shards = value("--shard").split("/")
if "{fault}" == shard:
    sys.exit("a disk is full")
for layer in (0, 1, 10):
    part = rounds / f"layer-{{layer}}.{{shard}}-of-{{shards}}.part"
    if not part.exists():
        header = {{"part": 1, "manifest": {{"rounds": 3, "round": {{"layer": layer}}}}}}
        beside = part.with_suffix(f".{{shard}}.new")
        beside.write_text(json.dumps(header) + f"\\n{{shard}} ")
        beside.rename(part)
    while len(list(rounds.glob(f"layer-{{layer}}.*.part"))) < int(shards):
        time.sleep(0.01)
"""


def calibration_in(folder: Path, fault: str = "") -> Job:
    """A calibration of three layers in three shards, of which one may fail."""
    program = folder / "bitnet"
    program.write_text(ROUNDS.format(python=sys.executable, fault=fault))
    program.chmod(0o755)
    return Job(["quantize", "-m", Path("m"), "--method=gptq"], folder / "out.gguf", 3, str(program))


def test_a_job_is_joined_its_parts_are_removed_and_an_output_is_never_taken_over(tmp_path: Path, ray: Ray) -> None:
    job = job_in(tmp_path)
    report = run(job, 2)
    assert (report.made, report.found, report.code, report.failed) == (4, 0, 0, {})
    # Both are parts of the whole.
    assert all(0 < seconds < report.seconds for seconds in (report.start_s, report.merge_s))
    assert len(Path(job.out).read_text().splitlines()) == 4 and not job.folder.exists()
    begun = ray.begun
    with pytest.raises(ClusterError, match="out.jsonl exists: remove it"):
        run(job, 2)
    assert ray.begun == begun and not job.folder.exists()


def test_standard_output_of_the_program_is_the_report_alone(
    tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_in(tmp_path)
    told = ray.wait

    def wait(calls: list[Call], **options: object) -> tuple[list[Call], list[Call]]:
        print("(raylet) a node has died")
        return told(calls, **options)

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    arguments = ["--workers", "2", "--shards", "4", "--out", str(job.out), "--bitnet", job.bitnet, "--", *job.command]
    monkeypatch.setattr(sys, "argv", ["cluster.py", *map(str, arguments)])
    assert cluster.main() == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["made"] == 4
    assert "a node has died" in err


@pytest.mark.parametrize(("code", "is_kept"), [(1, True), (3, False)])
def test_the_exit_code_of_the_merge_is_that_of_the_job(tmp_path: Path, ray: Ray, code: int, is_kept: bool) -> None:
    job = job_in(tmp_path, code)
    report = run(job, 2)
    assert report.code == code and report.sentence
    assert Path(job.out).exists() and job.folder.exists() == is_kept


def test_a_merge_without_an_output_is_an_error_and_its_parts_stay(tmp_path: Path, ray: Ray) -> None:
    with pytest.raises(ClusterError, match="a disk is full"):
        run(job_in(tmp_path, 4), 2)
    report = run(job_in(tmp_path), 2)
    assert (report.made, report.found) == (0, 4)


def test_workers_that_cannot_start_end_the_job_with_the_reason(tmp_path: Path, ray: Ray) -> None:
    ray.unready = [Ray.exceptions.RayError("died in its creation\nno module named x")]
    with pytest.raises(ClusterError, match="tried 5 times: no module named x"):
        run(job_in(tmp_path), 2)
    assert ray.begun == 2 * cluster.MAX_STARTS


def test_a_worker_that_ray_is_starting_again_is_waited_for(
    tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.0)
    ray.unready = [Ray.exceptions.ActorUnavailableError("restarting")] * 50
    ray.unready.append(None)  # type: ignore[arg-type]
    assert run(job_in(tmp_path), 1).made == 4
    assert [record.message.startswith("no worker has started") for record in caplog.records] == [True]


def test_a_shard_whose_worker_dies_is_made_again(tmp_path: Path, ray: Ray) -> None:
    ray.lost = {2}
    report = run(Job(["distill", "--sequential"], tmp_path / "out.gguf", 4, job_in(tmp_path).bitnet), 2)
    assert (report.made, report.redone, report.failed, report.code) == (4, 1, {}, 0)
    assert len(Path(tmp_path / "out.gguf").read_text().splitlines()) == 4


def solved(job: Job) -> list[str]:
    """The shards of a calibration's parts, as the student has them, in the order of the layers."""
    return [line.split()[0] for line in Path(job.out).read_text().split("\n")[1:]]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_calibration_goes_layer_by_layer_whatever_dies(tmp_path: Path, ray: Ray, workers: int) -> None:
    job = calibration_in(tmp_path)
    assert job.is_calibration and not Job(["batch"], "out", 1).is_calibration
    ray.lost = {1, 5, 9}
    seen: list[tuple[int, int]] = []
    report = run(job, workers, on_progress=lambda done, shards: seen.append((done, shards)))
    assert (report.made, report.redone, report.failed, report.code) == (9, 3, {}, 0)
    assert seen == [(done, 9) for done in range(1, 10)]
    assert [shard[0] for shard in solved(job)] == ["1", "2", "3"] * 3
    # Neither parts nor what the workers keep are left.
    assert not job.folder.exists() and list((tmp_path / "host").iterdir()) == []


def test_a_calibration_whose_driver_was_killed_goes_on_with_its_parts(tmp_path: Path, ray: Ray) -> None:
    job = calibration_in(tmp_path)

    def kill(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, 3, on_progress=kill)
    for actor in ray.actors:
        actor._end()
    with pytest.raises(ClusterError, match="another job"):
        run(Job([*job.command, "--kicks", "1"], job.out, 3, job.bitnet), 3)
    report = run(job, 3)
    assert (report.found, report.made) == (5, 4)
    assert [shard[0] for shard in solved(job)] == ["1", "2", "3"] * 3


def test_a_calibration_ends_with_the_layer_in_which_a_shard_fails(tmp_path: Path, ray: Ray) -> None:
    job = calibration_in(tmp_path, fault="2")
    report = run(job, 3)
    assert (report.made, report.failed) == (2, {2: "a disk is full"})
    assert sorted(path.name for path in job.folder.glob("*.part")) == ["layer-0.1-of-3.part", "layer-0.3-of-3.part"]
    assert not Path(job.out).exists()


def test_parts_of_a_layer_are_compared_and_those_of_others_are_not(tmp_path: Path) -> None:
    job = Job(["quantize", "--method", "gptq"], tmp_path / "out.gguf", 3)
    job.folder.mkdir()

    def of_layer(layer: int, streams: str) -> bytes:
        header = {"part": 1, "manifest": {"rounds": 2, "round": {"layer": layer, "streams_blake3": streams}}}
        return json.dumps(header).encode() + b"\n"

    assert _keep(job, 1, of_layer(0, "a"), "north") == "layer-0.1-of-3.part"
    assert _keep(job, 1, of_layer(1, "b"), "north") == "layer-1.1-of-3.part"
    with pytest.raises(ClusterError, match="shard 2 from south is of another job than .*layer-1.1-of-3.part, which north made"):
        _keep(job, 2, of_layer(1, "c"), "south")
    with pytest.raises(ClusterError, match="north made, and the same shard from south differ"):
        _keep(job, 1, of_layer(0, "c"), "south")
