"""The cells of a comparison, without Ray; and the whole of `studies/table1.py`, killed in the middle and resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from table1 import Table1

from catuvac import results
from catuvac.config import Config, ConfigError, preset
from catuvac.data import store
from catuvac.data.store import FeatureSet, Prepared
from catuvac.evaluation.objectives import scored
from catuvac.experiments import comparison
from catuvac.experiments.comparison import Cell, Comparison, cell_config
from catuvac.training import cost, run_dir

TABLE1 = Path(__file__).parents[2] / "studies" / "table1.py"


@pytest.fixture
def prepared(tiny_config: Config, tiny_features: FeatureSet, cache_dir: Path) -> Prepared:
    return Prepared(path=tiny_features.path, config=tiny_config, data_root=None, cache_dir=cache_dir)


@pytest.fixture
def cell(tiny_config: Config, prepared: Prepared) -> Callable[..., Cell]:
    def made(method: str, **more: str) -> Cell:
        settings = cell_config(tiny_config, method=method, epochs=2, n_clusters=3, seed=0)
        return Cell(method, settings, prepared, **more)

    return made


class TestSettings:
    def test_uvac_has_its_own_and_keeps_the_corpus(self) -> None:
        config = cell_config(preset("fsdd"), method="uvac", epochs=40, n_clusters=7, seed=3)
        assert config.features == preset("fsdd").features
        assert (config.model.method, config.model.n_clusters, config.training.seed) == ("uvac", 7, 3)
        assert (config.training.epochs, config.training.warmup_epochs) == (40, 10)

    def test_unknown_method(self) -> None:
        with pytest.raises(ConfigError, match="unknown method 'kmean'; did you mean 'kmeans'"):
            cell_config(preset("fsdd"), method="kmean", epochs=1, n_clusters=2, seed=0)


class TestCells:
    def test_labels_agree_with_themselves(self, cell: Callable[..., Cell]) -> None:
        report = cell("labels").fit("cpu")
        assert report["test/acc"] == report["val/nmi"] == 1.0
        assert report["test/n_classes"] == report["test/clusters_used"] == 3
        assert report["test/clips"] == 12
        assert "test/silhouette_x" in report
        assert not any(name.endswith(("_p", "_z")) for name in report)

    def test_what_a_method_has_not_has_no_score(self, cell: Callable[..., Cell]) -> None:
        kmeans, mixture = cell("kmeans").fit("cpu"), cell("pca_gmm").fit("cpu")
        assert not any(name.endswith(("_p", "_z")) for name in kmeans)
        assert {"test/silhouette_p", "test/silhouette_z", "test/mutual_information"} <= set(mixture)

    @pytest.mark.parametrize("method", comparison.VARIATIONAL)
    def test_variational_ones_read_the_test_split_once_at_the_end(self, method: str, cell: Callable[..., Cell]) -> None:
        run = cell(method).training("cpu")
        for report in run:
            assert not any(name.startswith("test/") for name in report)
        scores = comparison.test_scores(run)
        assert {"test/acc", "test/silhouette_x", "test/silhouette_z", "test/silhouette_p", "test/n_classes"} <= set(
            scores
        )

    def test_a_peer_that_cannot_cluster_is_a_diverged_cell(self, tmp_path: Path) -> None:
        for number in range(12):  # all alike: a mixture of three leaves components empty
            soundfile.write(tmp_path / f"{number}.wav", np.sin(np.arange(4000) * 0.1), 16000)
        config = preset("folder").with_settings({"n_bands": 16, "clip_seconds": 0.25})
        features = store.prepare(config, data_root=tmp_path, cache_dir=tmp_path / "cache", workers=1, progress=False)
        settings = cell_config(config, method="vade", epochs=2, n_clusters=3, seed=0)
        entry = Prepared(path=features.path, config=config, data_root=tmp_path, cache_dir=tmp_path / "cache")
        report = Cell("vade", settings, entry).fit("cpu")
        assert report["status"] == "diverged"
        assert not any("/" in name for name in report)
        assert run_dir.summary(report) == "diverged"

    def test_names(self, cell: Callable[..., Cell]) -> None:
        assert cell("uvac").trial_id == "synthetic-k3-uvac-s0"
        assert cell("cat_uvac", setting="top1").trial_id == "synthetic-k3-top1-s0"
        assert [cell(method).epochs for method in ("kmeans", "dcn", "uvac")] == [0, 2, 2]

    def test_a_node_whose_cache_lacks_the_features_extracts_them(
        self, tmp_path: Path, tiny_config: Config, cell: Callable[..., Cell]
    ) -> None:
        elsewhere = Prepared(path=tmp_path / "absent", config=tiny_config, data_root=None, cache_dir=tmp_path)
        scores = [replace(cell("kmeans"), features=entry).fit("cpu") for entry in (elsewhere, cell("kmeans").features)]
        assert scores[0]["test/silhouette_x"] == scores[1]["test/silhouette_x"]
        assert list(tmp_path.glob("*/x.npy"))


class TestGrid:
    def test_bad_grids(self, tmp_path: Path, cell: Callable[..., Cell]) -> None:
        with pytest.raises(ConfigError, match="no cells"):
            Comparison(name="a", storage=tmp_path, cells=())
        with pytest.raises(ConfigError, match="cells named twice: synthetic-k3-uvac-s0"):
            Comparison(name="a", storage=tmp_path, cells=(cell("uvac"), cell("uvac")))
        with pytest.raises(ConfigError, match="max_concurrent must not be negative, got -1"):
            Comparison(name="a", storage=tmp_path, cells=(cell("uvac"),), max_concurrent=-1)
        with pytest.raises(ConfigError, match="unknown objective 'acc'"):
            Comparison(name="a", storage=tmp_path, cells=(cell("uvac"),), objectives=("acc",))

    def test_one_method_under_several_settings(self, tmp_path: Path, cell: Callable[..., Cell]) -> None:
        cells = (cell("cat_uvac", setting="top1"), cell("cat_uvac", setting="paper"), cell("kmeans"))
        made = Comparison(name="a", storage=tmp_path, cells=cells, arm="confirm", objectives=("silhouette_x",))
        row = made.identify({"number": 1}, "ray's own")
        assert (row["trial_id"], row["method"], row["arm"]) == ("synthetic-k3-paper-s0", "cat_uvac", "confirm")
        assert made.describe({"number": 0}) == "synthetic-k3-top1-s0"
        assert set(made.design()) == {"synthetic-k3-top1-s0", "synthetic-k3-paper-s0", "synthetic-k3-kmeans-s0"}

    def test_an_objective_is_recorded_where_there_is_one(self, tmp_path: Path, cell: Callable[..., Cell]) -> None:
        plain = Comparison(name="a", storage=tmp_path, cells=(cell("kmeans"), cell("cat_uvac")))
        made = replace(plain, objectives=("mutual_information", "silhouette_x"))
        run = cell("cat_uvac").training("cpu")
        report = list(run)[-1]
        report |= scored(report, n_clusters=3)
        assert made.objective(report) == report["val/objective_mutual_information"]
        assert made.objective(cell("kmeans").fit("cpu")) is None
        assert plain.objective(report) is None


def test_flops_follow_the_architecture() -> None:
    """The first convolution alone: 2 · 8² · 16 · (T/2 · F/2) operations forward; two encoders against one."""
    config = comparison.cell_config(preset("synthetic"), method="cat_uvac_paper", epochs=1, n_clusters=5, seed=0)
    cat = cost.training_flops(config)
    uvac = cost.training_flops(config.with_settings({"method": "uvac"}))
    first = 2 * 64 * 16 * 16 * 16
    assert first < uvac < cat < 2 * uvac
    # One view more through one of two encoders and a decoder, all of about a size.
    assert 1.2 < cost.training_flops(config.with_settings({"invariance": 1.0})) / cat < 1.4
    wider = cost.training_flops(config.with_settings({"n_bands": 64}))
    assert 1.8 < wider / cat < 2.1
    assert cost.peer_flops(config) == 6 * 2 * (32 * 32 * 500 + 500 * 500 + 500 * 2000 + 2000 * 10)


def table1(tmp_path: Path, cache_dir: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, str(TABLE1), "--corpora", "synthetic", "--name", "a", "--storage", str(tmp_path)),
        *("--cache-dir", str(cache_dir), *flags),
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_killed_table_is_resumed_and_repeats_no_finished_cell(
    tmp_path: Path, cache_dir: Path, run_script: Callable[..., tuple[int, str, str]]
) -> None:
    command = table1(tmp_path, cache_dir, "--epochs", "4", "--seeds", "2", "--max-concurrent", "1", "--methods")
    command += ["labels", "kmeans", "cat_uvac"]
    trials = tmp_path / "a" / results.TRIALS
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 180
        while not (trials.exists() and len(results.read_trials(tmp_path / "a")) >= 2):
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)  # with its own Ray, as when the machine goes
        driver.wait()
    before = results.read_trials(tmp_path / "a").set_index("trial_id")
    assert 2 <= len(before) < 5
    code, out, errors = run_script(Table1, [*command[2:], "--resume"])
    assert code == 0, out + errors
    after = results.read_trials(tmp_path / "a").set_index("trial_id")
    assert len(after) == 5
    assert set(after["status"]) == {"complete"}
    repeated = ["started_at", "wall_seconds", "test/silhouette_x"]
    pd.testing.assert_frame_equal(after.loc[before.index, repeated], before[repeated])  # not run again
    for suffix in ("parquet", "md", "tex", "html"):
        assert (tmp_path / "a" / f"table1.{suffix}").stat().st_size > 0
    assert len(re.findall(r"^trial synthetic-k5-\S+: clusters used", out, re.MULTILINE)) <= 5 - len(before) + 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_dry_run_prints_the_plan_and_runs_nothing(
    tmp_path: Path, cache_dir: Path, run_script: Callable[..., tuple[int, str, str]]
) -> None:
    command = table1(tmp_path, cache_dir, "--dry-run", "--epochs", "10", "--seeds", "2", "--tflops", "1")
    code, out, errors = run_script(Table1, command[2:])
    assert code == 0, errors
    hours = cost.training_flops(preset("synthetic")) * 480 * 10 * 2 / 1e12 / 3600
    assert f"{hours:.3g}" in out
    assert "11 cells" in out
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--corpora", "fsd"], "did you mean 'fsdd'"),
        (["--corpora", "fsdd"], "give --data-root"),
        (["--methods", "kmean"], "did you mean 'kmeans'"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--split", "grouped"], "has no groups"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(
    flags: list[str], words: str, tmp_path: Path, cache_dir: Path, refused: Callable[..., str]
) -> None:
    assert words in refused(Table1, table1(tmp_path, cache_dir, *flags)[2:])
    assert not (tmp_path / "a").exists()
