from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catuvac.config import Config, ConfigError
from catuvac.data import store
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.training import checkpoint
from catuvac.training.run import Report, TrainingRun, use_bf16, with_sigma


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def untimed(report: Report) -> Report:
    return report | {"wall_seconds": 0.0, "train_seconds": 0.0}


def test_one_seed_gives_one_result_bit_for_bit(tiny_config: Config, tiny_features: FeatureSet) -> None:
    first, second = TrainingRun(tiny_config, tiny_features), TrainingRun(tiny_config, tiny_features)
    torch.manual_seed(123)  # the caller's random numbers are not the run's
    reports = [list(first), list(second)]
    assert same(weights(first), weights(second))
    for a, b in zip(*reports, strict=True):
        assert untimed(a) == untimed(b)


def test_the_seed_reaches_weights_order_and_noise(tiny_config: Config, tiny_features: FeatureSet) -> None:
    first = TrainingRun(tiny_config, tiny_features)
    second = TrainingRun(tiny_config.with_settings({"seed": 1}), tiny_features)
    assert not same(weights(first), weights(second))
    assert not torch.equal(first.order.get_state(), second.order.get_state())
    assert not torch.equal(first.noise.get_state(), second.noise.get_state())


def test_a_run_leaves_the_callers_random_numbers_alone(tiny_config: Config, tiny_features: FeatureSet) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(TrainingRun(tiny_config, tiny_features))
    assert torch.equal(torch.rand(3), expected)


def test_reports_are_flat_namespaced_and_finite(tiny_config: Config, tiny_features: FeatureSet) -> None:
    reports = list(TrainingRun(tiny_config.with_settings({"tau_end": 0.25}), tiny_features))
    assert [(r["epoch"], r["status"]) for r in reports] == [(1, "running"), (2, "complete")]
    last = reports[-1]
    assert last["tau"] == 0.25
    assert last["lr"] == tiny_config.training.lr_end
    assert {"loss/recon", "loss/kl_y", "loss/kl_z", "loss/total", "val/silhouette_p", "val/acc", "val/elbo"} <= set(
        last
    )
    numbers = [value for value in last.values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in numbers)


def test_churn_is_the_share_of_clips_that_changed_their_cluster(tiny_config: Config, tiny_features: FeatureSet) -> None:
    run = TrainingRun(tiny_config.with_settings({"epochs": 6, "eval_every": 1, "lr_start": 0.02}), tiny_features)
    clusters, churns = [], []
    for report in run:
        clusters.append(run.infer(tiny_features.splits["val"])["probabilities"].argmax(axis=1))
        churns.append(report["val/churn"])
    changed = [float((a != b).mean()) for a, b in itertools.pairwise(clusters)]
    assert churns[0] is None
    assert churns[1:] == pytest.approx(changed)
    assert max(changed) > 0


def test_the_last_epoch_is_evaluated_whatever_the_interval(tiny_config: Config, tiny_features: FeatureSet) -> None:
    config = tiny_config.with_settings({"epochs": 3, "eval_every": 2})
    assert [report["epoch"] for report in TrainingRun(config, tiny_features)] == [2, 3]


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("method", ["cat_uvac", "uvac"])
def test_a_resumed_run_ends_with_the_same_weights(
    method: str, stop: int, tiny_config: Config, tiny_features: FeatureSet, tmp_path: Path
) -> None:
    start = {"cluster_init": "kmeans", "warmup_share": 0.5, "lr_y_scale": 0.5}
    config = tiny_config.with_settings({"method": method, "epochs": 4, **start})
    whole = TrainingRun(config, tiny_features)
    last_whole = list(whole)[-1]

    interrupted = TrainingRun(config, tiny_features)
    for report in interrupted:
        checkpoint.save(tmp_path / "checkpoint.pt", interrupted.state())
        if report["epoch"] == stop:
            break
    resumed = TrainingRun(config, tiny_features)
    resumed.load_state(checkpoint.load(tmp_path / "checkpoint.pt"))
    last_resumed = list(resumed)[-1]

    assert same(weights(whole), weights(resumed))
    assert untimed(last_resumed) == untimed(last_whole)


@pytest.mark.parametrize("start", ["kmeans", "pca_gmm"])
def test_the_warm_up_teaches_a_baselines_clusters(start: str, tiny_config: Config, tmp_path: Path) -> None:
    settings = {"cluster_init": start, "epochs": 10, "warmup_share": 0.5, "eval_every": 5, "lr_start": 0.01}
    config = tiny_config.with_settings({"clips_per_class": 32, "n_bands": 32, **settings})
    features = store.prepare(config, data_root=None, cache_dir=tmp_path, workers=1, progress=False)
    run = TrainingRun(config, features)
    reports = list(run)
    assert [report["val/acc"] for report in reports] == [1.0, 1.0]
    assert reports[-1]["val/clusters_used"] == 3


def test_a_random_start_stands_still_during_the_warm_up(tiny_config: Config, tiny_features: FeatureSet) -> None:
    run = TrainingRun(tiny_config.with_settings({"epochs": 2, "warmup_share": 0.5, "eval_every": 1}), tiny_features)
    learned = [name for name, _ in run.model.named_parameters() if name.startswith("encoder_y")]
    before = weights(run)
    reports = iter(run)
    next(reports)
    after = weights(run)
    assert all(torch.equal(before[name], after[name]) for name in learned)
    assert not torch.equal(before["decoder.project.weight"], after["decoder.project.weight"])
    next(reports)
    assert not any(torch.equal(after[name], weights(run)[name]) for name in learned)


def test_the_clusters_have_a_learning_rate_of_their_own(tiny_config: Config, tiny_features: FeatureSet) -> None:
    run = TrainingRun(tiny_config.with_settings({"lr_y_scale": 0.1}), tiny_features)
    last = list(run)[-1]
    rest, clusters = (group["lr"] for group in run.optimizer.param_groups)
    assert last["lr"] == rest == tiny_config.training.lr_end
    assert clusters == pytest.approx(0.1 * rest)


def test_sigma_0_is_what_principal_axes_leave_over(tiny_config: Config, tiny_features: FeatureSet) -> None:
    config = tiny_config.with_settings({"likelihood": "gaussian", "sigma": 0.0}).model
    found = with_sigma(config, tiny_features).sigma
    x = tiny_features.x[tiny_features.splits["train"]].reshape(len(tiny_features.splits["train"]), -1)
    variances = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    unexplained = variances[config.latent_dim :].sum() / (x.shape[1] - config.latent_dim)
    assert found == pytest.approx(math.sqrt(unexplained), rel=0.02)
    assert with_sigma(replace(config, sigma=0.3), tiny_features).sigma == 0.3


def test_a_finished_run_yields_its_last_report_again(tiny_config: Config, tiny_features: FeatureSet) -> None:
    run = TrainingRun(tiny_config, tiny_features)
    last = list(run)[-1]
    again = TrainingRun(tiny_config, tiny_features)
    again.load_state(run.state())
    assert list(again) == [last]


def test_a_state_of_other_settings_is_refused(tiny_config: Config, tiny_features: FeatureSet) -> None:
    state = TrainingRun(tiny_config, tiny_features).state()
    with pytest.raises(CatuvacError, match="config_hash"):
        TrainingRun(tiny_config.with_settings({"seed": 9}), tiny_features).load_state(state)


def test_a_diverged_run_ends_with_finite_floors(tiny_config: Config, tiny_features: FeatureSet) -> None:
    run = TrainingRun(tiny_config.with_settings({"epochs": 5}), tiny_features)
    with torch.no_grad():
        next(run.model.encoder_y.parameters()).fill_(float("inf"))
    reports = list(run)
    assert [(r["epoch"], r["status"]) for r in reports] == [(1, "diverged")]
    report = reports[0]
    assert report["val/silhouette_p"] == -1.0
    assert report["val/degenerate"] is True
    assert report["loss/total"] is None
    assert all(math.isfinite(value) for value in report.values() if isinstance(value, float))
    healthy = next(iter(TrainingRun(tiny_config, tiny_features)))
    assert set(report) == set(healthy)  # Tune aborts a study over a metric that is missing from one report


def test_an_evaluation_that_is_not_finite_counts_as_diverged(tiny_config: Config, tiny_features: FeatureSet) -> None:
    """The losses are finite: only the clips of the validation and test splits are beyond the numbers."""
    others = np.concatenate([tiny_features.splits["val"], tiny_features.splits["test"]])
    x = tiny_features.x.copy()
    x[others] = np.float32(1e38)
    run = TrainingRun(tiny_config, replace(tiny_features, x=x))
    healthy = TrainingRun(tiny_config, tiny_features)
    reports = list(run)
    assert [(report["epoch"], report["status"]) for report in reports] == [(1, "diverged")]
    assert reports[0]["val/elbo"] is None
    assert reports[0]["val/silhouette_p"] == -1.0
    assert set(reports[0]) == set(next(iter(healthy)))
    assert run.evaluate("test")["elbo"] is None
    assert set(run.evaluate("test")) == set(healthy.evaluate("test"))


def test_labels_reach_the_metrics_only(tiny_config: Config, tiny_features: FeatureSet) -> None:
    unlabelled = replace(tiny_features, clips=tiny_features.clips.drop(columns="label"))
    with_labels, without = TrainingRun(tiny_config, tiny_features), TrainingRun(tiny_config, unlabelled)
    report = list(with_labels)[-1]
    bare = list(without)[-1]
    assert same(weights(with_labels), weights(without))
    assert set(report) - set(bare) == {"val/acc", "val/nmi", "val/ami", "val/ari"}


def test_the_training_part_learns(tiny_config: Config, tiny_features: FeatureSet) -> None:
    reports = list(TrainingRun(tiny_config.with_settings({"epochs": 10, "eval_every": 1}), tiny_features))
    assert reports[-1]["loss/recon"] < reports[0]["loss/recon"]
    assert reports[-1]["val/elbo"] > reports[0]["val/elbo"]


def test_float32_and_bfloat16_agree_on_the_loss(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config.with_settings({"n_bands": 32})
    features = store.prepare(config, data_root=None, cache_dir=tmp_path, workers=1, progress=False)
    losses = {
        precision: next(iter(TrainingRun(config.with_settings({"precision": precision}), features)))["loss/recon"]
        for precision in ("float32", "bf16")
    }
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.01)


def test_bfloat16_is_refused_where_the_cpu_computes_it_wrongly() -> None:
    cpu = torch.device("cpu")
    assert not use_bf16("auto", cpu, 16)
    assert use_bf16("bf16", cpu, 32)
    assert not use_bf16("float32", cpu, 32)
    with pytest.raises(ConfigError, match="F = 16"):
        use_bf16("bf16", cpu, 16)


def test_a_smaller_network_trains_resumes_and_says_its_cost(tiny_config: Config, tiny_features: FeatureSet) -> None:
    paper = tiny_config.with_settings({"channels": 16, "gru_size": 128})
    assert tiny_config.hash() != paper.hash()
    assert not {"channels", "gru_size"} & paper.flat().keys()  # as in results that are older than these settings
    run, whole = TrainingRun(tiny_config, tiny_features), TrainingRun(paper, tiny_features)
    report = list(run)[-1]
    assert report["val/macs"] == run.model.macs < whole.model.macs / 8
    again = TrainingRun(tiny_config, tiny_features)
    again.load_state(run.state())
    assert again.evaluate("val") == run.evaluate("val")
