"""Which trainings a branch study has, without Ray; and the whole of `studies/branch.py`, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from branch import BranchStudy
from ray import tune

from analysis.questions.branches import read_partitions
from catuvac import results
from catuvac.config import Config, ConfigError
from catuvac.data.store import FeatureSet, Prepared
from catuvac.experiments import branching
from catuvac.experiments.base import settings_of
from catuvac.experiments.branching import HOLD, Branches, Point
from catuvac.training.run import TrainingRun
from catuvac.tune.trainable import train_branch, train_trunk

BRANCH = Path(__file__).parents[2] / "studies" / "branch.py"
PRESET = """
preset: synthetic
settings:
  corpus: {clips_per_class: 16, n_classes: 3}
  features: {n_bands: 16}
  model: {n_clusters: 3, channels: 4, gru_size: 16, latent_dim: 2, sigma: 3.3, beta: 0.1}
  training: {cluster_init: random, warmup_share: 0.25, invariance: 0.0, batch_size: 8, eval_every: 3, epochs: 8,
             tau_start: 2.0, tau_end: 0.25}
  split: {val_fraction: 0.25, test_fraction: 0.25}
trials: 1
objectives: [silhouette_x]
"""


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return tiny_config.with_settings({"epochs": 10, "warmup_share": 0.2, "tau_start": 2.0, "tau_end": 0.5})


@pytest.fixture
def prepared(tiny_config: Config, tiny_features: FeatureSet, cache_dir: Path) -> Prepared:
    return Prepared(path=tiny_features.path, config=tiny_config, data_root=None, cache_dir=cache_dir)


class TestPoints:
    def test_shares_are_of_the_phase_after_the_warm_up_and_leave_an_epoch(self, config: Config) -> None:
        found = branching.points(config, (0.0, 0.5, 0.99), steps=3)
        assert [point.epoch for point in found] == [2, 6, 9]
        assert found[0].tau == 2.0
        assert 0.5 < found[2].tau < found[1].tau < 2.0

    @pytest.mark.parametrize(
        ("shares", "words"),
        [((), "at least one share"), ((1.0,), "must lie in"), ((0.5, 0.51), "epoch apart"), ((0.5, 0.0), "increase")],
    )
    def test_bad_shares(self, shares: tuple[float, ...], words: str, config: Config) -> None:
        with pytest.raises(ConfigError, match=words):
            branching.points(config, shares, steps=3)

    @pytest.mark.parametrize("settings", [{"y_estimator": "exact"}, {"method": "uvac"}])
    def test_what_has_no_temperature(self, settings: dict[str, str], config: Config) -> None:
        with pytest.raises(ConfigError, match="no temperature"):
            branching.points(config.with_settings(settings), (0.0,), steps=3)

    def test_ends_rise_and_each_is_there_once(self) -> None:
        assert branching.ends(Point(0.5, 6, 0.8), (HOLD, 0.1, 0.8)) == (0.1, 0.8)

    @pytest.mark.parametrize(("asked", "words"), [((0.1, 0.9), "it never rises"), ((0.8, HOLD), "two distinct values")])
    def test_bad_ends(self, asked: tuple[branching.TauEnd, ...], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            branching.ends(Point(0.5, 6, 0.8), asked)


class TestCells:
    def test_branches_differ_from_their_trunk_in_the_end_of_the_temperature(
        self, config: Config, prepared: Prepared, tiny_features: FeatureSet
    ) -> None:
        trunks, cells = branching.cells(
            config, prepared, shares=(0.0, 0.5), tau_ends=(0.1, 0.5, HOLD), seeds=(4, 5), steps=3
        )
        assert [trunk.config.training.seed for trunk in trunks] == [4, 5]
        assert [trunk.epochs for trunk in trunks] == [6, 6]
        assert len({cell.trial_id for cell in cells}) == len(cells) == 12
        for cell in cells:
            ours, theirs = cell.config.flat(), trunks[cell.trunk].config.flat()
            changed = {name for name in ours if ours[name] != theirs[name]}
            assert changed == (set() if ours["tau_end"] == 0.5 else {"tau_end"})
            assert cell.epochs == {0.0: 8, 0.5: 4}[cell.point.share]
        steps = TrainingRun(config, tiny_features).steps[1]
        assert steps == 3  # what the points were computed for

    def test_a_constant_temperature_has_a_way_down(self, config: Config, prepared: Prepared) -> None:
        constant = config.with_settings({"tau_end": 2.0, "tau_schedule": "constant"})
        _, cells = branching.cells(constant, prepared, shares=(0.0,), tau_ends=(0.1, HOLD), seeds=(0,), steps=3)
        shapes = {cell.config.training.tau_end: cell.config.training.tau_schedule for cell in cells}
        assert shapes == {0.1: "exponential", 2.0: "constant"}

    def test_rows_say_where_they_left_and_the_design_what_may_not_change(
        self, config: Config, prepared: Prepared, tmp_path: Path
    ) -> None:
        trunks, cells = branching.cells(config, prepared, shares=(0.5,), tau_ends=(0.1, HOLD), seeds=(4,), steps=3)
        made = Branches(name="a", storage=tmp_path, cells=cells, trunks=trunks, margin=0.05)
        row = made.identify({"number": 0}, "ray")
        assert (row["arm"], row["seed"], row["config/tau_end"]) == ("branch", 4, 0.1)
        assert (row["branch/share"], row["branch/epoch"], row["branch/parent_tau_end"]) == (0.5, 6.0, 0.5)
        assert made.epochs_before({"number": 0}) == 6
        assert made.design().keys() == {"margin", trunks[0].trial_id, *(cell.trial_id for cell in cells)}
        assert made.trunk_grid.folder == tmp_path / "a" / "trunks"
        assert made.trained_epochs(1) == made.epochs + 6  # those of the trunk
        assert made.shared_states == 2  # the trunk's last one, and that at the point


def test_branches_of_a_trunk_that_diverged_have_diverged(
    config: Config, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", reports.append)
    broken = config.with_settings({"lr_start": 1e30, "lr_end": 1e30, "grad_clip": 1e30})
    trunks, cells = branching.cells(broken, prepared, shares=(0.0, 0.5), tau_ends=(0.1, 0.5), seeds=(4,), steps=3)
    made = Branches(name="a", storage=tmp_path, cells=cells, trunks=trunks)
    train_trunk({"number": 0}, trunks=trunks, grid=made.trunk_grid)
    assert reports[-1]["status"] == "diverged"
    for number, cell in enumerate(cells):
        reports.clear()
        train_branch({"number": number}, grid=made)
        assert [(report["status"], report["epoch"]) for report in reports] == [("diverged", cell.point.epoch)]
        assert made.objective(reports[0]) is None
        assert reports[0]["val/degenerate"] is True


def command(tmp_path: Path, cache_dir: Path, *flags: str) -> list[str]:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(PRESET)
    places = ["--preset", str(preset), "--storage", str(tmp_path), "--cache-dir", str(cache_dir), "--name", "a"]
    return [sys.executable, str(BRANCH), *places, "--seeds", "2", "--shares", "0", "0.5", *flags]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("local_ray")
def test_a_study_that_is_killed_goes_on_and_its_unchanged_branches_are_the_unbranched_training(
    tmp_path: Path, cache_dir: Path, run_script: Callable[..., tuple[int, str, str]]
) -> None:
    asked = command(tmp_path, cache_dir, "--tau-ends", "0.05", "0.25")
    table = tmp_path / "a" / "trials.parquet"
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(asked, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 400  # of which a busy machine needs most to start processes
        while not (table.exists() and len(results.read_trials(tmp_path / "a")) >= 2):
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)  # with its own Ray, as when the machine goes
        driver.wait()
    before = results.read_trials(tmp_path / "a").set_index("trial_id")
    code, out, errors = run_script(BranchStudy, [*asked[2:], "--resume"])
    assert code == 0, out + errors
    rows = results.read_trials(tmp_path / "a").set_index("trial_id")
    assert set(rows["status"]) == {"complete"}
    assert sorted(rows["branch/share"]) == [0.0] * 4 + [0.5] * 4
    kept = ["started_at", "wall_seconds", "val/elbo"]
    pd.testing.assert_frame_equal(rows.loc[before.index, kept], before[kept])  # not run again
    assert (tmp_path / "a" / "report.html").stat().st_size > 0

    partitions = read_partitions(tmp_path / "a")
    assert {trial_id for _, trial_id in partitions} == set(rows.index)
    for seed in (0, 1):
        same = rows[(rows["seed"] == seed) & (rows["config/tau_end"] == 0.25)]
        config = Config().with_settings(settings_of(results.records(same.reset_index())[0]))
        assert config.hash() == same.iloc[0]["config_hash"]
        features = Prepared(path=Path("/nowhere"), config=config, data_root=None, cache_dir=cache_dir).open()
        whole = TrainingRun(config, features)
        report = list(whole)[-1]
        assert whole.clusters is not None
        for trial_id, row in same.iterrows():
            for name in ("val/elbo", "val/confidence", "val/silhouette_p", "loss/total", "val/churn"):
                assert row[name] == report[name], name
            assert np.array_equal(partitions["a", str(trial_id)][1], whole.clusters.numpy())
    # At one point all branches find the same partition of their trunk.
    for (_, _), group in rows.groupby(["seed", "branch/share"]):
        origins = [partitions["a", str(trial_id)][0] for trial_id in group.index]
        assert all(np.array_equal(origin, origins[0]) for origin in origins)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_dry_run_prints_the_plan_and_its_power_and_runs_nothing(
    tmp_path: Path, cache_dir: Path, run_script: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, errors = run_script(BranchStudy, command(tmp_path, cache_dir, "--dry-run")[2:])
    assert code == 0, errors
    assert "at share 0.5, after epoch 5" in out
    assert "power      2 seeds" in out
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seeds", "1"], "seeds must be at least 2"),
        (["--tau-ends", "0.1", "3"], "it never rises"),
        (["--tau-end", "3"], "tau_end must lie in"),
        (["--invariance", "-1"], "invariance must"),
        (["--margin", "0"], "margin must be positive"),
        (["--preset", "sythetic"], "did you mean 'synthetic'"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(
    flags: list[str], words: str, tmp_path: Path, cache_dir: Path, refused: Callable[..., str]
) -> None:
    assert words in refused(BranchStudy, command(tmp_path, cache_dir, *flags)[2:])
    assert not (tmp_path / "a").exists()
