"""Balanced targets and the swapped loss, on problems with known answers."""

from __future__ import annotations

import io
import itertools

import pytest
import torch

from catuvac.config import Config
from catuvac.data.store import FeatureSet
from catuvac.models.networks import ConvRecurrentEncoder
from catuvac.training.invariance import balanced_targets, swap_loss
from catuvac.training.run import TrainingRun

B, K = 120, 5


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(B, K, generator=torch.Generator().manual_seed(seed))


def test_targets_are_rows_of_probabilities_in_equal_clusters() -> None:
    targets = balanced_targets(logits() + torch.tensor([3.0, 0, 0, 0, -3]), iterations=100)
    assert torch.allclose(targets.sum(dim=1), torch.ones(B))
    assert torch.allclose(targets.sum(dim=0), torch.full((K,), B / K), atol=1e-2)


def test_targets_of_a_balanced_partition_are_that_partition() -> None:
    clusters = torch.arange(B) % K
    targets = balanced_targets(10.0 * torch.nn.functional.one_hot(clusters, K))
    assert torch.equal(targets.argmax(dim=1), clusters)
    assert targets.amax(dim=1).min() > 0.999


def test_a_cluster_that_takes_everything_gives_most_of_it_away() -> None:
    collapsed = logits() * 0.1
    collapsed[:, 0] += 20.0
    targets = balanced_targets(collapsed, iterations=50)
    assert targets.argmax(dim=1).bincount(minlength=K).min() > B / K / 3


def test_targets_carry_no_gradient_and_the_loss_does() -> None:
    one, other = logits(0).requires_grad_(), logits(1).requires_grad_()
    assert not balanced_targets(one).requires_grad
    swap_loss(one, other).backward()
    assert one.grad is not None
    assert other.grad is not None
    assert one.grad.abs().sum() > 0


def test_the_loss_is_low_only_where_views_agree_in_clusters_of_equal_size() -> None:
    clusters = torch.arange(B) % K
    agreed = 20.0 * torch.nn.functional.one_hot(clusters, K).float()
    shifted = agreed.roll(1, dims=0)
    collapsed = torch.zeros(B, K)
    collapsed[:, 0] = 20.0
    undecided = torch.zeros(B, K)
    assert swap_loss(agreed, agreed) < 1e-3
    for bad in (swap_loss(agreed, shifted), swap_loss(collapsed, collapsed), swap_loss(undecided, undecided)):
        assert bad > 1.0


INVARIANT = {"cluster_init": "invariance", "warmup_share": 0.5, "n_init": 2, "invariance": 1.0, "epochs": 6}


def invariant(config: Config, **settings: object) -> Config:
    return config.with_settings({**INVARIANT, "batch_size": 24, **settings})


def test_phases_follow_each_other(tiny_config: Config, tiny_features: FeatureSet) -> None:
    run = TrainingRun(invariant(tiny_config, epochs=10, warmup_share=0.5), tiny_features)
    phases, losses, starts = [], [], []
    for report in run:
        starts.append(1 + len(run.others))
        phases.append(run.step.phase)
        losses.append({name for name, value in report.items() if name.startswith("loss/") and value is not None})
    assert phases == ["start"] * 4 + ["warm_up"] + ["main"] * 5
    assert starts == [2] + [1] * 9  # a third of the start tells which one goes on
    assert losses[0] == {"loss/invariance"}
    assert losses[-1] == {"loss/total", "loss/recon", "loss/kl_y", "loss/kl_z", "loss/invariance"}


def test_the_temperature_falls_from_where_it_first_reaches_the_clusters(
    tiny_config: Config, tiny_features: FeatureSet
) -> None:
    run = TrainingRun(invariant(tiny_config, epochs=8, tau_start=2.0, tau_end=0.5), tiny_features)
    taus = [report["tau"] for report in run]
    assert taus[:4] == [2.0] * 4
    assert all(a > b for a, b in itertools.pairwise(taus[4:]))
    assert taus[-1] == 0.5


def test_the_chosen_start_is_the_one_with_most_invariant_information(
    tiny_config: Config, tiny_features: FeatureSet
) -> None:
    """A second start that has been handed the solution is chosen over the first, which is random."""
    long = invariant(tiny_config, epochs=80, n_init=1, eval_every=80, warmup_share=0.9, lr_start=0.01)
    solved = TrainingRun(long, tiny_features)
    assert list(solved)[-1]["val/invariant_information"] > 0.5
    run = TrainingRun(invariant(tiny_config), tiny_features)
    assert len(run.others) == 1
    run.others[0].load_state_dict(solved.model.encoder_y.state_dict())  # type: ignore[union-attr]
    run._choose_start()
    assert run.others == []
    chosen = run.model.encoder_y.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(chosen[name], value) for name, value in solved.model.encoder_y.state_dict().items())  # type: ignore[union-attr]


def test_all_latent_dimensions_have_the_same_starts(tiny_config: Config, tiny_features: FeatureSet) -> None:
    """Else a study that varies d would also vary its starts, which differ by more than its settings."""
    config = invariant(tiny_config, epochs=10, n_init=3)
    runs = [TrainingRun(config.with_settings({"latent_dim": d}), tiny_features) for d in (1, 5)]
    for begun in zip(*(run.starts for run in runs), strict=True):
        assert equal(*begun)
    first, second, third = runs[0].starts
    assert not any(equal(*pair) for pair in ((first, second), (first, third), (second, third)))
    for run in runs:
        list(run.until(config.training.start_epochs))
    assert equal(*(run.starts[0] for run in runs))


def equal(first: ConvRecurrentEncoder, second: ConvRecurrentEncoder) -> bool:
    weights = second.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_run_resumed_in_any_phase_ends_with_the_same_weights(
    tiny_config: Config, tiny_features: FeatureSet, epoch: int
) -> None:
    config = invariant(tiny_config)
    whole = TrainingRun(config, tiny_features)
    buffer = io.BytesIO()
    for report in whole:
        if report["epoch"] == epoch:
            torch.save(whole.state(), buffer)
    buffer.seek(0)
    resumed = TrainingRun(config, tiny_features)
    resumed.load_state(torch.load(buffer, weights_only=True))
    list(resumed)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
