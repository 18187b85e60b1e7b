"""Many trials at once on two nodes: nobody gets more than there is, nothing is lost, and the driver does not grow."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from drivers import Driver, busy_nodes, check_complete, rows
from ray.cluster_utils import Cluster

TRIALS = int(os.environ.get("CATUVAC_TEST_TRIALS", "16"))  # tests/README.md records runs with 64 and 2 000
EPOCHS = int(os.environ.get("CATUVAC_TEST_EPOCHS", "2"))
LARGEST_GROWTH = 0.5  # MiB of the driver's memory a trial: Ray keeps statistics of every metric of every trial
SLACK = 4.0  # MiB that an allocator takes at once
WARM = 8  # trials after which every part of the driver has been in use


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """Two nodes of one core and one fake GPU each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1, num_gpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def memory(pid: int) -> float:
    """Resident memory in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.timeout(180 + 20 * TRIALS)
def test_quarter_gpus_are_never_oversubscribed_and_the_driver_does_not_grow(
    two_nodes: Cluster, tmp_path: Path, cache_dir: Path
) -> None:
    share = ("--cpus-per-trial", "0.25", "--gpus-per-trial", "0.25")
    flags = ("--sampler", "random", "--trials", str(TRIALS), "--epochs", str(EPOCHS))
    driver = Driver(two_nodes, tmp_path, cache_dir, "--name", "a", *flags, *share, clips_per_class=8)
    ray.init(address=two_nodes.address, log_to_driver=False, logging_level="ERROR")
    most: Counter[str] = Counter()
    sizes: dict[int, tuple[float, float]] = {}  # seconds and MiB, by trials done
    began = time.monotonic()
    try:
        while driver.process.poll() is None:
            for node, busy in busy_nodes().items():
                most[node] = max(most[node], busy)
            sizes[rows(tmp_path)] = time.monotonic() - began, memory(driver.process.pid)
            time.sleep(0.2)
    finally:
        ray.shutdown()
    assert driver.end() == 0, driver.text()
    print(f"trials at once, at most, on each node: {sorted(most.values())}")
    assert len(most) == 2
    assert max(most.values()) <= 4  # a quarter of one GPU each
    first = min(done for done in sizes if done >= WARM)
    last = max(done for done in sizes if done < TRIALS)  # the report is built after the last trial
    for done in sorted(sizes)[:: max(1, len(sizes) // 20)]:
        print(f"{done:>5} trials: {sizes[done][0]:.0f} s, {sizes[done][1]:.0f} MiB")
    growth = sizes[last][1] - sizes[first][1]
    print(f"{growth / max(1, last - first):.4f} MiB a trial")
    assert growth <= LARGEST_GROWTH * (last - first) + SLACK
    check_complete(tmp_path, trials=TRIALS, last=EPOCHS)
