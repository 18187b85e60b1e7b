from __future__ import annotations

import math

import pytest
import torch

from catuvac.config import ModelConfig
from catuvac.models.cat_uvac import CatUVAC, limit_pull
from catuvac.models.distributions import kl_marginal, kl_standard_normal, kl_uniform
from catuvac.models.fast_conv import split_pixels

K, D, T, F = 4, 3, 32, 16


def model(**settings: object) -> CatUVAC:
    torch.manual_seed(0)
    return CatUVAC(ModelConfig(n_clusters=K, latent_dim=D, **settings), n_frames=T, n_bands=F)  # type: ignore[arg-type]


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(6, 1, T, F, generator=noise())


def test_evaluation_has_no_noise(x: torch.Tensor) -> None:
    net = model().eval()
    first, second = net.infer(x), net.infer(x)
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.z, first.mean)
    assert torch.equal(first.y.argmax(-1), first.logits.argmax(-1))
    assert set(first.y.unique().tolist()) == {0.0, 1.0}


def test_training_noise_follows_the_generator(x: torch.Tensor) -> None:
    net = model()
    first, second = (net.infer(x, tau=0.7, generator=noise(1)) for _ in range(2))
    other = net.infer(x, tau=0.7, generator=noise(2))
    assert torch.equal(first.z, second.z)
    assert not torch.equal(first.y, other.y)


def test_loss_terms_by_hand(x: torch.Tensor) -> None:
    net = model(beta=0.5)
    cells = torch.ones_like(x)
    inference = net.infer(x, tau=1.0, generator=noise())
    logits = net.generate(inference.y, inference.z)
    terms = net.loss(x, cells, inference, logits)
    p = torch.sigmoid(logits)
    by_hand = -(x * p.log() + (1 - x) * (1 - p).log()).sum(dim=(1, 2, 3)).mean()
    assert terms.recon.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert terms.total.item() == pytest.approx((terms.recon + 0.5 * terms.kl_y + terms.kl_z).item(), rel=1e-6)
    assert 0 <= terms.kl_y.item() <= math.log(K)


@pytest.mark.parametrize(
    ("beta_on", "weights"), [("kl_y", (1, 0.1, 1)), ("kl", (1, 0.1, 0.1)), ("reconstruction", (0.1, 1, 1))]
)
def test_beta_weighs_the_named_term(beta_on: str, weights: tuple[float, float, float], x: torch.Tensor) -> None:
    net = model(beta=0.1, beta_on=beta_on)
    inference = net.infer(x, tau=1.0, generator=noise())
    terms = net.loss(x, torch.ones_like(x), inference, net.generate(inference.y, inference.z))
    recon, kl_y, kl_z = weights
    weighed = recon * terms.recon + kl_y * terms.kl_y + kl_z * terms.kl_z
    assert terms.total.item() == pytest.approx(weighed.item(), rel=1e-6)


def test_masked_cells_do_not_count(x: torch.Tensor) -> None:
    net = model().eval()
    inference = net.infer(x)
    logits = net.generate(inference.y, inference.z)
    cells = torch.ones_like(x)
    cells[:, :, T // 2 :] = 0
    changed = x.clone()
    changed[:, :, T // 2 :] = 1 - changed[:, :, T // 2 :]
    assert torch.equal(net.loss(x, cells, inference, logits).recon, net.loss(changed, cells, inference, logits).recon)


def test_gaussian_likelihood_is_a_log_density(x: torch.Tensor) -> None:
    net = model(likelihood="gaussian", sigma=0.3).eval()
    inference = net.infer(x)
    logits = net.generate(inference.y, inference.z)
    normal = torch.distributions.Normal(torch.sigmoid(logits), 0.3)
    expected = -normal.log_prob(x).sum(dim=(1, 2, 3)).mean()
    assert net.loss(x, torch.ones_like(x), inference, logits).recon.item() == pytest.approx(expected.item(), rel=1e-5)


def test_every_weight_gets_a_gradient(x: torch.Tensor) -> None:
    net = model()
    inference = net.infer(x, tau=1.0, generator=noise())
    net.loss(x, torch.ones_like(x), inference, net.generate(inference.y, inference.z)).total.backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name


def test_the_elbo_does_not_reach_the_clusters_during_the_warm_up(x: torch.Tensor) -> None:
    net = model()
    net.warm_up(True)
    inference = net.infer(x, tau=1.0, generator=noise())
    net.loss(x, torch.ones_like(x), inference, net.generate(inference.y, inference.z)).total.backward()
    assert all(weight.grad is None for weight in net.encoder_y.parameters())
    assert all(weight.grad is not None for weight in (*net.encoder_z.parameters(), *net.decoder.parameters()))


def test_bfloat16_keeps_the_loss_in_float32(x: torch.Tensor) -> None:
    net, inside = model(), []
    net.decoder.convolutions[0].register_forward_hook(lambda _, __, out: inside.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inference = net.infer(x, tau=0.5, generator=noise())
        logits = net.generate(inference.y, inference.z)
        terms = net.loss(x, torch.ones_like(x), inference, logits)
    assert inside == [torch.bfloat16]
    assert {t.dtype for t in (terms.recon, terms.kl_y, terms.kl_z, inference.y, inference.z)} == {torch.float32}


def test_the_kl_of_y_is_information_plus_inequality() -> None:
    """The identity that lets each part have a weight of its own, on a batch of any logits."""
    logits = 3 * torch.randn(50, K, generator=noise())
    q = torch.softmax(logits, dim=-1)
    entropy_of_mean = -(q.mean(0) * q.mean(0).log()).sum()
    mean_entropy = -(q * q.log()).sum(-1).mean()
    assert kl_marginal(logits).item() == pytest.approx(math.log(K) - entropy_of_mean.item(), abs=1e-5)
    information = kl_uniform(logits).mean() - kl_marginal(logits)
    assert information.item() == pytest.approx((entropy_of_mean - mean_entropy).item(), abs=1e-5)


def test_both_parts_at_beta_are_the_paper_and_each_weighs_its_own(x: torch.Tensor) -> None:
    def total(**settings: float) -> tuple[float, float, float]:
        net = model(beta=0.3, **settings)
        terms, logits = net.negative_elbo(x, torch.ones_like(x), tau=1.0, generator=noise())
        information = terms.kl_y - kl_marginal(logits)
        return terms.total.item(), information.item(), kl_marginal(logits).item()

    paper, information, marginal = total()
    assert total(beta_marginal=0.3, beta_information=0.3)[0] == pytest.approx(paper, rel=1e-6)
    assert total(beta_marginal=5.3)[0] == pytest.approx(paper + 5 * marginal, rel=1e-6)
    assert total(beta_information=-0.7)[0] == pytest.approx(paper - information, rel=1e-6)


def test_the_exact_estimator_is_the_expectation_over_y(x: torch.Tensor) -> None:
    """Σ_k q(k|x) of the terms that each cluster gives by itself, at the same z noise."""
    net = model(y_estimator="exact").eval()
    cells = torch.ones_like(x)
    terms, logits = net.negative_elbo(x, cells, tau=1.0, generator=noise())
    z_noise = torch.empty(len(x) * K, D).normal_(generator=noise()).view(len(x), K, D)
    by_hand = torch.zeros(len(x))
    for k in range(K):
        y = torch.nn.functional.one_hot(torch.full((len(x),), k), K).float()
        mean, log_variance = net.encoder_z(split_pixels(x), y).chunk(2, dim=-1)
        drawn = net.generate(y, mean + (0.5 * log_variance).exp() * z_noise[:, k])
        recon = torch.nn.functional.binary_cross_entropy_with_logits(drawn, x, reduction="none").sum(dim=(1, 2, 3))
        by_hand += torch.softmax(logits, dim=-1)[:, k] * (recon + kl_standard_normal(mean, log_variance))
    assert (terms.recon + terms.kl_z).item() == pytest.approx(by_hand.mean().item(), rel=1e-4)


def test_the_exact_estimator_reads_no_temperature(x: torch.Tensor) -> None:
    net = model(y_estimator="exact")
    hot, cold = (net.negative_elbo(x, torch.ones_like(x), tau=tau, generator=noise())[0] for tau in (5.0, 0.1))
    assert hot.total == cold.total


def test_straight_through_is_one_hot_forward_and_relaxed_backward(x: torch.Tensor) -> None:
    net = model(y_estimator="straight_through")
    y = net.infer(x, tau=0.7, generator=noise()).y
    relaxed = model().infer(x, tau=0.7, generator=noise()).y
    assert torch.allclose(y.detach().amax(dim=1), torch.ones(len(x)))
    assert torch.equal(y.argmax(dim=1), relaxed.argmax(dim=1))
    y[:, 0].sum().backward()
    assert net.encoder_y.head.weight.grad.abs().sum() > 0


def test_the_pull_on_the_logits_of_a_clip_is_limited_and_keeps_its_direction() -> None:
    logits = torch.zeros(3, K, requires_grad=True)
    pull = torch.tensor([[300.0, 0, 0, 0], [0.3, 0, 0, 0], [3, 4, 0, 0]])
    (limit_pull(logits) * pull).sum(dim=1).mean().backward()
    assert torch.allclose(3 * logits.grad, torch.tensor([[1.0, 0, 0, 0], [0.3, 0, 0, 0], [0.6, 0.8, 0, 0]]))
