"""What does temperature do to a Gumbel-Softmax sample and to its gradient? This question needs no study."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import t

from analysis.stats.bootstrap import CONFIDENCE

PROBABILITIES = (0.5, 0.3, 0.2)  # of the three clusters whose samples are drawn
SAMPLES = 500  # per temperature, from the same noise
DRAWN = (0.1, 0.5, 1.0, 2.0, 5.0)  # temperatures

K = 10  # n_clusters for the gradients
TAUS = (0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 7.0, 10.0)
COLD, WARM = 0.1, 1.0
BATCHES, BATCH = 20, 2000  # noise samples, in batches for the interval
LOGITS = np.linspace(-1.0, 1.0, K)
COSTS = np.random.default_rng(0).permutation(np.linspace(-1.0, 1.0, K))
TARGET = np.eye(K)[K // 2]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """f(y) = costs·y + curvature ‖y‖², on the simplex."""

    name: str
    costs: Floats  # [K]
    curvature: float

    def slope(self, y: Floats) -> Floats:
        """df/dy at `y` `[…, K]`."""
        return self.costs + 2 * self.curvature * y


LOSSES = (
    Loss("linear", COSTS, 0.0),
    Loss("quadratic", -2 * TARGET, 1.0),  # ‖y - target‖² up to a constant
)


@dataclass(frozen=True)
class Gradients:
    """The gradient of E[f(y)] with respect to the logits, estimated from one relaxed sample.

    Attributes:
        loss: f.
        exact: norm of the gradient of the categorical expectation, which the estimate approximates.
        table: by `tau`: `variance` (trace of the covariance) with its 95 % interval `low`, `high`, and `bias` (norm).
        growth: variance at COLD divided by that at WARM, with its interval.
        fall: bias at WARM divided by that at COLD.
    """

    loss: Loss
    exact: float
    table: pd.DataFrame
    growth: float
    growth_low: float
    growth_high: float
    fall: float


def gumbel_softmax(logits: Floats, noise: Floats, *, tau: float) -> Floats:
    """Computes the samples of `catuvac.models.distributions.gumbel_softmax` from given Gumbel noise `[…, K]`."""
    sample: Floats = softmax((logits + noise) / tau, axis=-1)
    return sample


def samples() -> pd.DataFrame:
    """Draws `SAMPLES` rows per temperature: `tau` and the entries `y0`, `y1`, `y2`; each row i has the same noise."""
    noise = np.random.default_rng(0).gumbel(size=(SAMPLES, len(PROBABILITIES)))
    logits = np.log(np.array(PROBABILITIES))
    tables = [
        pd.DataFrame(gumbel_softmax(logits, noise, tau=tau), columns=["y0", "y1", "y2"]).assign(tau=tau)
        for tau in DRAWN
    ]
    return pd.concat(tables, ignore_index=True)


def sample_gradient(y: Floats, slope: Floats, *, tau: float) -> Floats:
    """Returns df/dlogits `[…, K]` through samples y: (diag(y) - y yᵀ) / tau, times df/dy."""
    gradient: Floats = y * (slope - (y * slope).sum(axis=-1, keepdims=True)) / tau
    return gradient


def exact_gradient(loss: Loss) -> Floats:
    """Returns d/dlogits of E[f(one-hot)] under Cat(softmax(LOGITS)), `[K]`."""
    p = softmax(LOGITS)
    of_corner = loss.costs + loss.curvature
    gradient: Floats = p * (of_corner - p @ of_corner)
    return gradient


def relaxed_gradient(loss: Loss, *, tau: float) -> Floats:
    """Returns E[sample_gradient] `[K]` without sampling noise, which would hide the bias at low temperatures."""
    first, pairs, triples = _moments(tau)
    linear = loss.costs * first - pairs @ loss.costs
    quadratic = 2 * loss.curvature * (pairs.diagonal() - triples.sum(axis=1))
    gradient: Floats = (linear + quadratic) / tau
    return gradient


def gradients(loss: Loss) -> Gradients:
    """Computes variance and bias over `TAUS`, all from the same noise."""
    noise = np.random.default_rng(0).gumbel(size=(BATCHES, BATCH, K))
    exact, rows, of_batch = exact_gradient(loss), [], {}
    for tau in TAUS:
        y = gumbel_softmax(LOGITS, noise, tau=tau)
        variance = sample_gradient(y, loss.slope(y), tau=tau).var(axis=1, ddof=1).sum(axis=-1)  # [BATCHES]
        mean, low, high = _interval(variance)
        bias = float(np.linalg.norm(relaxed_gradient(loss, tau=tau) - exact))
        rows.append({"tau": tau, "variance": mean, "low": low, "high": high, "bias": bias})
        of_batch[tau] = variance
    table = pd.DataFrame(rows).set_index("tau")
    growth, low, high = np.exp(_interval(np.log(of_batch[COLD] / of_batch[WARM])))
    fall = float(table["bias"][WARM] / table["bias"][COLD])
    return Gradients(loss, float(np.linalg.norm(exact)), table, float(growth), float(low), float(high), fall)


@cache
def _moments(tau: float) -> tuple[Floats, Floats, Floats]:
    """Returns E[y_i] `[K]`, E[y_i y_j] and E[y_i y_j²] `[K, K]`, by numerical integration.

    With w_k = exp((logit_k + g_k) / tau) a sample is y = w / Σw, and 1 / (Σw)^m = ∫ s^(m-1) exp(-s Σw) ds / (m-1)!
    makes each moment an integral over s of a product of expectations over one g each (`_laplace`).
    """
    step = 0.2 * max(tau, 1.0)
    u = np.arange(-160, 40) * step  # tau log s; the integrands vanish at both ends
    zero, one, two, three = _laplace(u[:, None] + LOGITS, tau=tau)
    zero = np.maximum(zero, 1e-300)  # avoids NaN ratios where the product of all K is 0
    weight = zero.prod(axis=1)[:, None] * step / tau
    one, two, three = one / zero, two / zero, three / zero
    pairs = one.T @ (one * weight)
    np.fill_diagonal(pairs, (two * weight).sum(axis=0))
    triples = one.T @ (two * weight) / 2
    np.fill_diagonal(triples, (three * weight).sum(axis=0) / 2)
    return (one * weight).sum(axis=0), pairs, triples


def _laplace(a: Floats, *, tau: float) -> Floats:
    """Returns E[w^m exp(-w)], w = exp((a + g) / tau), g ~ Gumbel(0, 1), for m = 0 to 3 along the first axis."""
    step = min(0.25, 0.5 / tau)  # of log w: if tau is large, the noise is narrow
    h = np.arange(-36.0, 5.0, step)
    kernels = np.exp(np.outer(h, [1, 2, 3]) - np.exp(h)[:, None]) * step
    falling = np.exp(a[..., None] - tau * h)  # finite for tau up to 15
    below = np.exp(-falling)  # P(log w < h)
    higher = tau * (falling * below) @ kernels
    # m = 0 by parts, because exp(-w) does not vanish at the left end.
    return np.concatenate([below @ kernels[:, :1], higher], axis=-1).transpose(2, 0, 1)


def _interval(of_batch: Floats) -> tuple[float, float, float]:
    """Returns the mean over batches with its 95 % t-interval."""
    mean = float(of_batch.mean())
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(of_batch) - 1) * of_batch.std(ddof=1) / np.sqrt(len(of_batch)))
    return mean, mean - reach, mean + reach
