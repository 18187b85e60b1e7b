"""Balanced invariance: two views of a clip share a cluster, and all clusters are equally large.

This is the swapped assignment of SwAV (Caron et al. 2020) with the clusters themselves as prototypes, balanced to the
model's own prior Cat(1/K); SeLa (Asano et al. 2020), IMSAT (Hu et al. 2017) and IIC (Ji et al. 2019) are relatives.
It uses no labels, k-means or mixture.

Shape legend: B clips, K clusters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_CLIPS = 1024  # enough to rank the starts
EPSILON = 0.1  # temperature of the targets; at 0.5 two clusters share two classes forever (studies/cold-start.md)
ITERATIONS = 5  # of the balancing; the rows come last and are exact


@torch.no_grad()
def balanced_targets(logits: Tensor, *, iterations: int = ITERATIONS) -> Tensor:
    """Returns the assignment nearest to the logits in which all clusters are equally large (Sinkhorn and Knopp 1967).

    Args:
        logits: `[B, K]`.
        iterations: of scaling columns to B / K and rows to 1 in turn.

    Returns:
        `[B, K]` float32, rows on the simplex, without a gradient.
    """
    log_q = logits.float() / EPSILON
    for _ in range(iterations):
        log_q = log_q - torch.logsumexp(log_q, dim=0)  # columns of sum B / K, up to a constant that the rows cancel
        log_q = log_q - torch.logsumexp(log_q, dim=1, keepdim=True)
    return log_q.exp()


def swap_loss(logits: Tensor, other: Tensor) -> Tensor:
    """Returns the scalar cross-entropy of each view against the other's balanced assignment, in nats per clip.

    Args:
        logits, other: `[B, K]` of two views of the same clips, of which one may be the clip itself.
    """
    there = F.cross_entropy(other, balanced_targets(logits))
    back = F.cross_entropy(logits, balanced_targets(other))
    return 0.5 * (there + back)
