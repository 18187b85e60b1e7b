from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from catuvac import checkpoint
from catuvac.config import Config, ConfigError
from catuvac.data import store
from catuvac.data.store import FeatureSet
from catuvac.training import Report, TrainingRun, use_bf16


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def untimed(report: Report) -> Report:
    return report | {"wall_seconds": 0.0}


def test_one_seed_gives_one_result_bit_for_bit(tiny_config: Config, tiny_features: FeatureSet) -> None:
    first, second = TrainingRun(tiny_config, tiny_features), TrainingRun(tiny_config, tiny_features)
    torch.manual_seed(123)  # the caller's random numbers are not the run's
    reports = [list(first), list(second)]
    assert same(weights(first), weights(second))
    for a, b in zip(*reports, strict=True):
        assert {k: v for k, v in a.items() if k != "wall_seconds"} == {
            k: v for k, v in b.items() if k != "wall_seconds"
        }


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


def test_the_last_epoch_is_evaluated_whatever_the_interval(tiny_config: Config, tiny_features: FeatureSet) -> None:
    config = tiny_config.with_settings({"epochs": 3, "eval_every": 2})
    assert [report["epoch"] for report in TrainingRun(config, tiny_features)] == [2, 3]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_ends_with_the_same_weights(
    stop: int, tiny_config: Config, tiny_features: FeatureSet, tmp_path: Path
) -> None:
    config = tiny_config.with_settings({"epochs": 4})
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


def test_the_kmeans_start_survives_the_warm_up_and_finds_planted_classes(tiny_config: Config, tmp_path: Path) -> None:
    settings = {"cluster_init": "kmeans", "epochs": 20, "warmup_epochs": 10, "eval_every": 10}
    config = tiny_config.with_settings({"clips_per_class": 64, "n_bands": 32, **settings})
    features = store.prepare(config, data_root=None, cache_dir=tmp_path, workers=1, progress=False)
    run = TrainingRun(config, features)
    before = weights(run)
    reports = iter(run)
    assert next(reports)["val/acc"] == 1.0
    after = weights(run)
    first = "encoder_y.convolutions.0.weight"
    assert torch.equal(before[first], after[first])  # q(y|x) stood still,
    assert not torch.equal(before["encoder_y.head.weight"], after["encoder_y.head.weight"])  # but for its start
    last = list(reports)[-1]
    assert not torch.equal(before[first], weights(run)[first])
    assert last["val/acc"] == 1.0
    assert last["val/clusters_used"] == 3


def test_a_finished_run_yields_its_last_report_again(tiny_config: Config, tiny_features: FeatureSet) -> None:
    run = TrainingRun(tiny_config, tiny_features)
    last = list(run)[-1]
    again = TrainingRun(tiny_config, tiny_features)
    again.load_state(run.state())
    assert list(again) == [last]


def test_a_state_of_other_settings_is_refused(tiny_config: Config, tiny_features: FeatureSet) -> None:
    state = TrainingRun(tiny_config, tiny_features).state()
    with pytest.raises(ValueError, match="config_hash"):
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


def test_labels_reach_the_metrics_only(tiny_config: Config, tiny_features: FeatureSet) -> None:
    from dataclasses import replace

    unlabelled = replace(tiny_features, clips=tiny_features.clips.drop(columns="label"))
    with_labels, without = TrainingRun(tiny_config, tiny_features), TrainingRun(tiny_config, unlabelled)
    report = list(with_labels)[-1]
    bare = list(without)[-1]
    assert same(weights(with_labels), weights(without))
    assert set(report) - set(bare) == {"val/acc", "val/nmi", "val/ari"}


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
