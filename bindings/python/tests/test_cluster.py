"""What the cluster adapter keeps, without a cluster; `cargo xtask prove cluster` runs it on one."""

import json
from pathlib import Path

import pytest

from craftsman_ultra.cluster import ClusterError, Job, _keep, _part


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
