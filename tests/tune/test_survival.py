"""Studies whose driver, node or disk goes, on real Ray clusters whose nodes are processes of this machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from drivers import Driver, busy_nodes, check_complete, rows
from ray.cluster_utils import Cluster

from catuvac import results
from catuvac.config import preset
from catuvac.errors import CatuvacError
from catuvac.experiments.search import Arm, Search
from catuvac.training import checkpoint

EVENTS = int(os.environ.get("CATUVAC_TEST_EVENTS", "5"))  # tests/README.md records a run with 20
TRIALS = 4 + 2 * EVENTS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node of two cores and four fake GPUs, with no driver in this process."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 4, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 MB in memory; a plain folder where it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", folder]
    mounted = os.getuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    yield folder
    if mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Training:
    """`catuvac train` as a process, again and again into one folder."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self.run, self.log = folder / "run", folder.with_suffix(".train")
        flags = ("--preset", "synthetic", "--clips-per-class", "16", "--n-bands", "16", "--epochs", "100")
        flags += ("--eval-every", "1", "--batch-size", "32", "--threads", "1", "--cache-dir", str(cache_dir))
        self.command = [sys.executable, "-c", TRAIN, "train", *flags, "--out", str(self.run)]
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """From the last checkpoint, where there is one."""
        resume = ["--resume"] if (self.run / "config.yaml").exists() else []
        with self.log.open("a") as log:
            return subprocess.Popen([*self.command, *resume], stdout=log, stderr=log, start_new_session=True)

    def weights(self) -> dict[str, Any]:
        return checkpoint.load(self.run / "weights.pt")


TRAIN = "import sys; from catuvac.cli import main; sys.exit(main())"
SECOND, FULL = "a second person", "a full disk"
EVENT = [signal.SIGINT, signal.SIGKILL, signal.SIGTERM, FULL, SECOND]  # trials end while a second person tries
STOPPED = r"error: the study stopped: .* cannot be written \(storage: No space left on device\); .*--resume"
WHOLE = "interrupted; the files on disk are complete"
ADDED = "factorial:y_estimator=gumbel/exact+tau_ratio=0.1/1"  # four settings on two seeds


@pytest.mark.slow
@pytest.mark.timeout(400 + 100 * EVENTS)
def test_a_month_in_a_lab_loses_and_repeats_nothing(cluster: Cluster, disk: Path, cache_dir: Path) -> None:
    """A study and a training share a disk; at random moments somebody ends both, fills it, or starts what runs.

    After the first event the study goes on with more arms and seeds.
    """
    moments, folder = random.Random(0), disk
    flags = ["--name", "a", "--arms", f"qmc:{TRIALS - 8}", "--keep-top", "2", "--epochs", "30"]
    driver, training = Driver(cluster, folder, cache_dir, *flags), Training(folder, cache_dir)
    driver.wait_for(lambda: (folder / "a" / "study.json").exists() and (training.run / "checkpoint.pt").exists())
    flags[3] += f",{ADDED}"
    flags += ["--seeds", "2"]
    ended: dict[int, str] = {}  # trials by number
    saved: dict[str, int] = {}  # epochs by trial, when the last driver ended

    def wanted(count: int) -> bool:
        for number, epoch in reached(folder).items():
            assert epoch >= saved.get(number, 0), "an epoch that had a checkpoint was trained again"
        return rows(folder) >= count

    events = [event for event in EVENT if event != FULL or folder.is_mount()]
    for event in itertools.islice(itertools.cycle(events), EVENTS):
        driver.wait_for(partial(wanted, min(max(1, rows(folder) + moments.randint(0, 1)), TRIALS - 4)))
        time.sleep(moments.uniform(0, 1))
        print(f"{event!r} with {rows(folder)} of {TRIALS} trials done")
        if event == SECOND:
            for command, first in ((driver.command, driver), ([*training.command, "--resume"], training)):
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=driver.env)
                assert done.returncode == 2 or first.process.poll() == 0, done.stderr
            continue
        if event == FULL:
            with contextlib.suppress(OSError), (folder / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(1 << 20))
            assert driver.end() == 2, driver.text()
            assert re.match(STOPPED, driver.text().strip().splitlines()[-1]), driver.text()
            assert training.process.wait(60) in (0, 2), training.log.read_text()
            (folder / "filler").unlink()
        else:
            began = time.monotonic()
            for process in (driver.process, training.process):
                process.send_signal(event)
            codes = driver.end(), training.process.wait(60)
            print(f"ended {time.monotonic() - began:.1f} s after {event!r}")
            if event != signal.SIGKILL:
                assert codes[0] == 130
                assert codes[1] in (130, 0), training.log.read_text()  # 0: it had ended by itself
                assert driver.text().splitlines()[-1] == WHOLE
                assert "Tuner.restore" not in driver.text()
                # What had ended is in both tables.
                table = results.read_trials(folder / "a")
                assert set(table["trial_id"]) <= set(results.read_history(folder / "a")["trial_id"])
        if rows(folder):
            ended |= results.read_trials(folder / "a").set_index("number")["trial_id"].to_dict()
        saved = reached(folder)
        before = driver.text()
        checked = before.count("storage    ")
        driver = Driver(cluster, folder, cache_dir, *flags, "--resume")
        training.process = training.start()
        driver.wait_for(partial(lambda last, count: last.text().count("storage    ") > count, driver, checked))
        if event in (signal.SIGINT, signal.SIGTERM):  # which leave every file whole
            assert "damaged" not in driver.text().removeprefix(before)
    assert driver.end() == 0, driver.text()
    assert training.process.wait(240) == 0, training.log.read_text()
    for text in (driver.text(), training.log.read_text()):
        assert "Traceback" not in text
        assert "Exception in thread" not in text
    check_complete(folder, trials=TRIALS, last=30)
    table = results.read_trials(folder / "a").set_index("number").sort_index()
    assert {number: table["trial_id"][number] for number in ended} == ended
    arms = (Arm("qmc", TRIALS - 8), Arm.parse(ADDED, seeds=2))
    undisturbed = Search(name="a", storage=folder, config=preset("synthetic"), arms=arms)
    for number, (arm, point) in enumerate(undisturbed.slots()):
        for name in ("tau_start", "beta") if arm == "qmc" else ("y_estimator",):
            assert table[f"config/{name}"][number] == point[name]
        assert table["seed"][number] == point.get("block", number)
    assert table.loc[TRIALS - 8 :].groupby("config/split_seed").size().to_dict() == {0: 4, 1: 4}
    assert list(results.read_history(training.run)["epoch"]) == list(range(1, 101))
    quiet = Training(folder.with_name("quiet"), cache_dir)
    assert quiet.process.wait(240) == 0, quiet.log.read_text()
    ours, theirs = training.weights(), quiet.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """Two nodes of one core and two fake GPUs each; the second may go."""
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "num_gpus": 2, "include_dashboard": False, "_system_config": quick},
    )
    made.add_node(num_cpus=1, num_gpus=2)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_node_gives_its_trials_to_the_others_and_a_new_one_is_used(
    two_nodes: Cluster, tmp_path: Path, cache_dir: Path
) -> None:
    import ray

    share = ("--cpus-per-trial", "0.5", "--gpus-per-trial", "0.25", "--sampler", "random")
    # As long as it takes a process to start on the new node: where a trial ends before, Ray gives the next one to its
    # process.
    share += ("--trials", "4", "--epochs", "200")
    driver = Driver(two_nodes, tmp_path, cache_dir, "--name", "a", *share)
    ray.init(address=two_nodes.address, log_to_driver=False, logging_level="ERROR")
    try:
        first, second = two_nodes.head_node.node_id, two_nodes.list_all_nodes()[-1]

        def under_way() -> bool:
            """The second node is busy, and every trial that runs has left a checkpoint to go on from."""
            busy = busy_nodes()
            return busy[second.node_id] > 0 and len(reached(tmp_path)) >= busy.total()

        driver.wait_for(under_way)
        two_nodes.remove_node(second, allow_graceful=False)
        driver.wait_for(lambda: "node lost; continues from its last checkpoint" in driver.text())
        third = two_nodes.add_node(num_cpus=1, num_gpus=2)
        most: Counter[str] = Counter()

        def used() -> bool:
            busy = busy_nodes()
            for node in busy:
                most[node] = max(most[node], busy[node])
            return busy[third.node_id] > 0

        driver.wait_for(used)
        while driver.process.poll() is None:
            used()
            time.sleep(0.3)
        assert driver.end() == 0, driver.text()
        assert set(most) <= {first, third.node_id}
        assert max(most.values()) <= 2  # half a core each: one more would be too many
    finally:
        ray.shutdown()
    check_complete(tmp_path, trials=4, last=200)


def reached(folder: Path) -> dict[str, int]:
    """The epoch of each trial's last checkpoint."""
    epochs = {}
    for path in folder.glob("a/checkpoints/*/last.pt"):
        with contextlib.suppress(CatuvacError):  # deleted at this moment
            epochs[path.parent.name] = checkpoint.load(path)["run"]["epoch"]
    return epochs
