"""What the preflight says of a cluster: its arithmetic, and all of it on two real nodes of one machine.

The nodes differ in their current folder, so a path below /proc/self/cwd is another place on each of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catuvac.config import Config, preset
from catuvac.data import store
from catuvac.data.store import FeatureSet, Prepared
from catuvac.errors import CatuvacError
from catuvac.experiments.comparison import Cell, Comparison, cell_config
from catuvac.experiments.search import Arm, Search
from catuvac.training import checkpoint
from catuvac.training.run import TrainingRun
from catuvac.tune import preflight
from catuvac.tune.preflight import Node

HERE = Path("/proc/self/cwd")
MINE, ENTRY = "1" * 16, "2" * 16  # names of entries of a cache


@pytest.fixture
def prepared(tiny_config: Config, tiny_features: FeatureSet, cache_dir: Path) -> Prepared:
    return Prepared(path=tiny_features.path, config=tiny_config, data_root=None, cache_dir=cache_dir)


@pytest.fixture
def plan(tmp_path: Path, tiny_config: Config) -> Search:
    return Search(name="a", storage=tmp_path / "results", config=tiny_config, arms=(Arm("random", 6),))


class TestArithmetic:
    @pytest.mark.parametrize(
        ("cpus", "gpus", "carried"),
        [
            (1, 0, 8),
            (3, 0, 2),
            (9, 0, 0),
            (1, 0.25, 8),
            (0.5, 0.3, 6),
            (0.1, 1 / 3, 6),
            (1, 0.6, 2),
            (1, 2, 1),
            (1, 3, 0),
        ],
    )
    def test_trials_of_a_node(self, cpus: float, gpus: float, carried: int, plan: Search) -> None:
        asked = replace(plan, cpus_per_trial=cpus, gpus_per_trial=gpus)
        assert preflight.slots({"CPU": 8.0, "GPU": 2.0, "memory": 1e9}, asked) == carried

    def test_trials_at_once(self, plan: Search) -> None:
        nodes = [Node(id=str(n), name=str(n), resources={"CPU": n}) for n in (0, 1, 3)]
        assert preflight.concurrent(plan, nodes) == 4
        assert preflight.concurrent(replace(plan, max_concurrent=3), nodes) == 3
        assert preflight.concurrent(replace(plan, arms=(Arm("random", 2),)), nodes) == 2

    def test_a_version_that_differs_names_node_package_and_both(self) -> None:
        here = {"python": "3.11.9", "torch": "2.12.1"}
        preflight.compare(here, {"a": here, "b": dict(here)})
        with pytest.raises(CatuvacError, match=r"node b has torch 2\.11\.0, but the driver has 2\.12\.1; give"):
            preflight.compare(here, {"a": here, "b": {**here, "torch": "2.11.0"}})

    def test_versions_of_this_machine(self) -> None:
        found = preflight.versions()
        assert list(found) == ["python", "torch", "ray", "optuna", "catuvac"]
        assert re.fullmatch(r"[0-9a-f]{12}", found["catuvac"])
        assert all(re.fullmatch(r"[0-9.]+", found[name]) for name in ("python", "torch", "ray", "optuna"))

    def test_gpus_are_those_that_nvidia_smi_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert preflight.gpus() == []
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA H100, 81559\necho NVIDIA GB10, [N/A]\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        assert preflight.gpus() == [("NVIDIA H100", 81559 * 2**20), ("NVIDIA GB10", 0)]
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho no devices were found\nexit 6\n")
        assert preflight.gpus() == []

    @pytest.mark.parametrize("method", ["cat_uvac", "uvac"])
    def test_size_of_a_checkpoint(
        self, method: str, tmp_path: Path, tiny_config: Config, tiny_features: FeatureSet
    ) -> None:
        whole = tiny_config.with_settings({"channels": 16, "gru_size": 128})
        config = cell_config(whole, method=method, epochs=1, n_clusters=3, seed=0)
        run = TrainingRun(config, tiny_features)
        list(run)
        checkpoint.save(tmp_path / "checkpoint.pt", run.state())
        size = (tmp_path / "checkpoint.pt").stat().st_size
        assert preflight.checkpoint_bytes(config) == pytest.approx(size, rel=0.02)

    def test_disk(self, plan: Search) -> None:
        size = 50_000_000  # the last and the best checkpoint of six finished and two running trials
        assert "0.8 GB of checkpoints" in preflight.disk(plan, checkpoint=size, at_once=2)
        assert "0.5 GB of checkpoints" in preflight.disk(replace(plan, keep_top=3), checkpoint=size, at_once=2)
        assert not plan.storage.exists()
        with pytest.raises(CatuvacError, match=r"GB free and may need .* lower --keep-top \(now all\)"):
            preflight.disk(plan, checkpoint=10**17, at_once=2)
        with pytest.raises(CatuvacError, match="GB free and may need"):
            preflight.disk(plan, checkpoint=size * 10**4, at_once=2)
        written = plan.folder / "checkpoints" / "0000" / "last.pt"
        written.parent.mkdir(parents=True)
        with written.open("wb") as file:
            file.truncate(17 * size * 10**4)  # a hole, which takes no space
        preflight.disk(plan, checkpoint=size * 10**4, at_once=2)  # the study has them already
        elsewhere = replace(plan, remote="s3://bucket/prefix?region=eu-central-1")
        assert "the free space is not known here" in preflight.disk(elsewhere, checkpoint=10**17, at_once=2)

    def test_steps_are_timed(self, tiny_config: Config, prepared: Prepared) -> None:
        seconds, steps = preflight.step_seconds(tiny_config, prepared, cpus=1.0, gpus=0.0)
        assert 0 < seconds < 10
        assert steps == 3  # 24 clips in batches of 8


class TestProbe:
    def test_nothing_remains(self, tmp_path: Path) -> None:
        place = tmp_path / "a b" / "results"
        with preflight._probe(str(place), ".probe"):
            preflight._write(str(place), ".probe-of-a-node", "")
            assert len(list(place.iterdir())) == 2
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(KeyError), preflight._probe(f"file://{tmp_path}/b", ".probe"):
            raise KeyError
        assert list(tmp_path.iterdir()) == []

    def test_what_others_wrote_stays(self, tmp_path: Path) -> None:
        with preflight._probe(str(tmp_path / "results"), ".probe"):
            (tmp_path / "results" / "theirs").touch()
        assert [path.name for path in (tmp_path / "results").iterdir()] == ["theirs"]

    @pytest.mark.parametrize(("place", "words"), [("file/results", "Not a directory"), ("file", "exists")])
    def test_a_place_that_cannot_be_written(self, place: str, words: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with (
            pytest.raises(CatuvacError, match=f"cannot write to {tmp_path / place} .*{words}.*give --storage a folder"),
            preflight._probe(str(tmp_path / place), ".probe"),
        ):
            pass

    def test_a_place_that_does_not_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preflight, "ANSWER_SECONDS", 0.2)
        os.mkfifo(tmp_path / ".probe")  # opening it for writing waits for a reader
        with (
            pytest.raises(CatuvacError, match=r"cannot write to .* \(no answer within 0 s\)"),
            preflight._probe(str(tmp_path), ".probe"),
        ):
            pass
        assert (tmp_path / ".probe").read_text() == ".probe"

    def test_an_address_of_no_known_kind(self) -> None:
        with pytest.raises(CatuvacError, match="bogus://bucket"), preflight._probe("bogus://bucket", ".probe"):
            pass


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes of one CPU and two pretended GPUs, the driver in the current folder of the first."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    with contextlib.chdir(folders[0]):
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 2, "include_dashboard": False})
        with contextlib.chdir(folders[1]):
            made.add_node(num_cpus=1, num_gpus=2)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        made.folders = folders
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.mark.slow
class TestCluster:
    def test_all_well(self, cluster: Any, plan: Search, tiny_config: Config, prepared: Prepared) -> None:
        del cluster
        asked = replace(plan, gpus_per_trial=0.5)
        lines = preflight.preflight(asked, config=tiny_config, features=prepared, estimate=True)
        text = "\n".join(lines)
        assert all(re.match(r"\w+ +\S", line) and line[10] == " " != line[11] for line in lines)
        labels = [line.split()[0] for line in lines]
        assert labels == ["resources", "versions", "gpus", "gpus", "storage", "features", "disk", "time"]
        assert "2 nodes with 2 CPUs and 4 GPUs: 2 trials at once of 1 CPUs and 0.5 GPUs" in text
        assert "12 epochs × 3 steps" in text
        assert f"{plan.storage}: written and read by 2 nodes" in text
        assert not plan.storage.exists()

    def test_an_address_instead_of_a_folder(self, cluster: Any, plan: Search, tmp_path: Path) -> None:
        del cluster
        (tmp_path / "bucket").mkdir()
        asked = replace(plan, remote=f"file://{tmp_path / 'bucket'}")
        lines = preflight.preflight(asked, config=None, features=None)
        assert f"storage    file://{tmp_path}/bucket: written and read by 2 nodes" in lines
        assert [path.name for path in tmp_path.iterdir()] == ["bucket"]
        assert list((tmp_path / "bucket").iterdir()) == []

    def test_a_grid_brings_the_features_of_its_cells(
        self, cluster: Any, tmp_path: Path, tiny_config: Config, prepared: Prepared
    ) -> None:
        del cluster
        cells = [Cell(method, tiny_config, prepared) for method in ("kmeans", "cat_uvac")]
        grid = Comparison(name="a", storage=tmp_path, cells=tuple(cells))
        lines = preflight.preflight(grid, config=None, features=None)
        assert [line.split()[0] for line in lines] == ["resources", "versions", "storage", "features", "disk"]

    def test_a_request_that_can_never_be_met(self, cluster: Any, plan: Search, prepared: Prepared) -> None:
        del cluster
        asked = replace(plan, gpus_per_trial=3.0)
        words = r"no node can run a trial with 1 CPUs and 3 GPUs \(nodes: 1 CPUs and 2 GPUs; 1 CPUs and 2 GPUs\); lower"
        with pytest.raises(CatuvacError, match=words):
            preflight.preflight(asked, config=None, features=None)
        asked = replace(asked, autoscaling=True)
        lines = preflight.preflight(asked, config=plan.config, features=prepared, estimate=True)
        assert [line.split()[0] for line in lines] == ["resources", "versions", "storage", "disk", "time"]
        assert "no node can run a trial" in lines[0]
        assert "6 running and 6 finished" in lines[3]
        assert "not measured" in lines[4]

    def test_storage_that_the_nodes_do_not_share(self, cluster: Any, plan: Search) -> None:
        (cluster.folders[1] / "results").mkdir()
        words = (
            rf"node \S+ \(\w+\): {HERE}/results is not what the driver wrote to .*give --storage a folder that every"
        )
        with pytest.raises(CatuvacError, match=words):
            preflight.preflight(replace(plan, storage=HERE / "results"), config=None, features=None)
        assert not (cluster.folders[0] / "results").exists()
        assert list((cluster.folders[1] / "results").iterdir()) == []

    def test_features_that_a_node_has_not(
        self, cluster: Any, plan: Search, tmp_path: Path, tiny_features: FeatureSet
    ) -> None:
        shutil.copytree(tiny_features.path, cluster.folders[0] / MINE)
        entry = Prepared(
            path=HERE / MINE, config=preset("folder"), data_root=HERE / "data", cache_dir=tmp_path / "cache"
        )
        with pytest.raises(CatuvacError, match=rf"node \S+ \(\w+\): --data-root {HERE}/data is not") as caught:
            preflight.preflight(plan, config=None, features=entry)
        assert "\n" not in str(caught.value)

    def test_features_that_differ(
        self, cluster: Any, plan: Search, tmp_path: Path, tiny_config: Config, tiny_features: FeatureSet
    ) -> None:
        other = tiny_config.with_settings({"corpus_seed": 1})
        theirs = store.prepare(other, data_root=None, cache_dir=tmp_path, workers=1, progress=False)
        shutil.copytree(tiny_features.path, cluster.folders[0] / ENTRY)
        shutil.copytree(theirs.path, cluster.folders[1] / ENTRY)
        entry = Prepared(path=HERE / ENTRY, config=tiny_config, data_root=None, cache_dir=tmp_path)
        with pytest.raises(CatuvacError, match=r"has other features, \[48, 32, 16\] with checksum"):
            preflight.preflight(plan, config=None, features=entry)

    def test_a_node_of_another_version(self, cluster: Any, plan: Search, tmp_path: Path) -> None:
        (tmp_path / "optuna-4.0.0.dist-info").mkdir()
        metadata = "Metadata-Version: 2.1\nName: optuna\nVersion: 4.0.0\n"
        (tmp_path / "optuna-4.0.0.dist-info" / "METADATA").write_text(metadata)
        node = cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(tmp_path)})
        try:
            with pytest.raises(CatuvacError, match=rf"\({node.node_id[:8]}\) has optuna 4\.0\.0, but the driver has"):
                preflight.preflight(plan, config=None, features=None)
        finally:
            cluster.remove_node(node)
        assert not plan.storage.exists()

    def test_a_node_that_does_not_answer(self, cluster: Any, plan: Search, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preflight, "ANSWER_SECONDS", 3.0)
        node = cluster.add_node(num_cpus=1)
        raylet = node.all_processes["raylet"][0].process
        raylet.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(CatuvacError, match=rf"no answer within 3 s from node .*\({node.node_id[:8]}\).*fix it"):
                preflight.preflight(plan, config=None, features=None)
        finally:
            raylet.send_signal(signal.SIGCONT)
            cluster.remove_node(node)
        assert not plan.storage.exists()
