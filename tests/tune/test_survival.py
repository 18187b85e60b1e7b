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

EVENTS = int(os.environ.get("CATUVAC_TEST_EVENTS", "3"))  # tests/README.md records a run with 20
TRIALS = 4 + 2 * EVENTS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node of two cores and four fake GPUs, with no driver in this process."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 4, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 800 MB in memory; skips where it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.getuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


class Training:
    """`catuvac train` as a process, again and again into one folder."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self.run, self.log = folder / "run", folder.with_suffix(".train")
        flags = ("--preset", "synthetic", "--clips-per-class", "16", "--n-bands", "16", "--epochs", "150")
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
EVENT = itertools.cycle([signal.SIGINT, signal.SIGKILL, "a second person", signal.SIGTERM, "a full disk"])
WHOLE = "interrupted; the files on disk are complete"


@pytest.mark.slow
@pytest.mark.timeout(300 + 60 * EVENTS)
def test_a_month_in_a_lab_loses_and_repeats_nothing(cluster: Cluster, small_disk: Path, cache_dir: Path) -> None:
    """A study and a training share a disk; at random moments somebody ends both, fills it, or starts what runs."""
    moments, folder = random.Random(0), small_disk
    flags = ("--name", "a", "--sampler", "qmc", "--trials", str(TRIALS), "--keep-top", "2", "--epochs", "30")
    driver, training = Driver(cluster, folder, cache_dir, *flags), Training(folder, cache_dir)
    driver.wait_for(lambda: (folder / "a" / "study.json").exists() and (training.run / "checkpoint.pt").exists())
    for event in itertools.islice(EVENT, EVENTS):
        before = rows(folder)
        driver.wait_for(partial(lambda wanted: rows(folder) >= wanted, min(before + moments.randint(0, 1), TRIALS - 2)))
        time.sleep(moments.uniform(0, 4))
        print(f"{event!r} with {rows(folder)} of {TRIALS} trials done")
        if event == "a second person":
            for command, first in ((driver.command, driver), ([*training.command, "--resume"], training)):
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=driver.env)
                assert done.returncode == 2 or first.process.poll() == 0, done.stderr
            continue
        if event == "a full disk":
            with contextlib.suppress(OSError), (folder / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(1 << 20))
            assert driver.end() == 2, driver.text()
            assert "--resume" in driver.text().strip().splitlines()[-1]
            assert training.process.wait(60) in (0, 2), training.log.read_text()
            (folder / "filler").unlink()
        else:
            for process in (driver.process, training.process):
                process.send_signal(event)
            ended = driver.end(), training.process.wait(60)
            if event != signal.SIGKILL:
                assert set(ended) <= {130, 0}, (driver.text(), training.log.read_text())  # 0: it had ended by itself
                assert ended[0] == 0 or driver.text().splitlines()[-1] == WHOLE
        checked = driver.text().count("storage    ")
        driver = Driver(cluster, folder, cache_dir, *flags, "--resume")
        training.process = training.start()
        driver.wait_for(partial(lambda last, count: last.text().count("storage    ") > count, driver, checked))
    assert driver.end() == 0, driver.text()
    assert training.process.wait(240) == 0, training.log.read_text()
    for text in (driver.text(), training.log.read_text()):
        assert "Traceback" not in text
        assert "Exception in thread" not in text
    assert driver.text().count("snapshot   cannot be read") < EVENTS  # Ray itself goes on, but where it died writing
    check_complete(folder, trials=TRIALS, last=30)
    table = results.read_trials(folder / "a").set_index("number")
    made = Search(name="a", storage=folder, config=preset("synthetic"), arms=(Arm("qmc", TRIALS),))
    for number, (_, point) in enumerate(made.slots()):  # what an undisturbed study tries
        assert table["config/tau_start"][number] == point["tau_start"]
        assert table["config/beta"][number] == point["beta"]
        assert table["seed"][number] == number
    assert list(results.read_history(training.run)["epoch"]) == list(range(1, 151))
    undisturbed = Training(folder.with_name("quiet"), cache_dir)
    assert undisturbed.process.wait(240) == 0, undisturbed.log.read_text()
    ours, theirs = training.weights(), undisturbed.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=lambda ending: ending.name)
def test_ctrl_c_or_the_end_of_a_job_ends_the_study_at_once_and_it_goes_on(
    ending: signal.Signals, cluster: Cluster, tmp_path: Path, cache_dir: Path
) -> None:
    flags = ("--name", "a", "--sampler", "random", "--trials", "4", "--epochs", "20")
    driver = Driver(cluster, tmp_path, cache_dir, *flags)
    driver.wait_for(lambda: rows(tmp_path) >= 1 and len(list(tmp_path.glob("a/checkpoints/*/last.pt"))) >= 2)
    began = time.monotonic()
    driver.process.send_signal(ending)
    assert driver.end() == 130, driver.text()
    print(f"ended {time.monotonic() - began:.1f} s after {ending.name}")
    assert driver.text().splitlines()[-1] == "interrupted; the files on disk are complete"
    assert "Traceback" not in driver.text()
    # What had ended is in both tables, and its evaluations no longer lie about.
    done = results.read_trials(tmp_path / "a")
    assert 1 <= len(done) < 4
    assert set(done["trial_id"]) <= set(results.read_history(tmp_path / "a")["trial_id"])
    again = Driver(cluster, tmp_path, cache_dir, *flags, "--resume")
    assert again.end() == 0, again.text()
    assert "damaged" not in again.text()
    check_complete(tmp_path, trials=4, last=20)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_extension_that_is_killed_goes_on_and_repeats_nothing(
    cluster: Cluster, tmp_path: Path, cache_dir: Path
) -> None:
    first = Driver(cluster, tmp_path, cache_dir, "--name", "a", "--arms", "qmc:2")
    assert first.end() == 0, first.text()
    before = results.read_trials(tmp_path / "a")
    flags = ("--name", "a", "--arms", "qmc:2,factorial:y_estimator=gumbel/exact+tau_ratio=0.1/1", "--seeds", "2")
    driver = Driver(cluster, tmp_path, cache_dir, *flags, "--resume")
    driver.wait_for(lambda: rows(tmp_path) >= 4)
    driver.kill()
    again = Driver(cluster, tmp_path, cache_dir, *flags, "--resume")
    assert again.end() == 0, again.text()
    check_complete(tmp_path, trials=10)
    table = results.read_trials(tmp_path / "a").set_index("number").sort_index()
    assert table.loc[before["number"].tolist(), "trial_id"].tolist() == before["trial_id"].tolist()
    assert table.loc[2:].groupby("config/split_seed").size().to_dict() == {0: 4, 1: 4}


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
    share += ("--trials", "4", "--epochs", "80")
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
    check_complete(tmp_path, trials=4, last=80)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_full_disk_stops_the_study_and_costs_the_unfinished_epochs_alone(
    cluster: Cluster, small_disk: Path, cache_dir: Path
) -> None:
    flags = ("--name", "a", "--sampler", "random", "--trials", "4", "--keep-top", "1", "--epochs", "16")
    driver = Driver(cluster, small_disk, cache_dir, *flags)
    driver.wait_for(lambda: max(reached(small_disk).values(), default=0) >= 5)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(1 << 20))
    assert driver.end() == 2, driver.text()
    assert "Exception in thread" not in driver.text()
    error = driver.text().strip().splitlines()[-1]
    stopped = r"error: the study stopped: .* cannot be written \(storage: No space left on device\); "
    assert re.match(stopped, error), driver.text()
    assert "--resume" in error
    (small_disk / "filler").unlink()
    before = reached(small_disk)
    again = Driver(cluster, small_disk, cache_dir, *flags, "--resume")
    while again.process.poll() is None:
        now = reached(small_disk)
        for number in before.keys() & now.keys():  # a trial's checkpoints are deleted once better ones have ended
            assert now[number] >= before[number], "an epoch that had a checkpoint was trained again"
        time.sleep(0.5)
    assert again.end() == 0, again.text()
    check_complete(small_disk, trials=4, last=16)


def reached(folder: Path) -> dict[str, int]:
    """The epoch of each trial's last checkpoint."""
    epochs = {}
    for path in folder.glob("a/checkpoints/*/last.pt"):
        with contextlib.suppress(CatuvacError):  # deleted at this moment
            epochs[path.parent.name] = checkpoint.load(path)["run"]["epoch"]
    return epochs
