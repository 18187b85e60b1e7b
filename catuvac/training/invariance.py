"""Balanced invariance: two views of a clip share a cluster, and all clusters are as large as each other.

This is the swapped assignment of SwAV (Caron et al. 2020) with the clusters themselves as prototypes, balanced to the
model's own prior Cat(1/K); SeLa (Asano et al. 2020), IMSAT (Hu et al. 2017) and IIC (Ji et al. 2019) are relatives.
No label, k-means or mixture has a part in it.

Shape legend: B clips, K clusters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_CLIPS = 1024  # that are enough to tell one start from another
EPSILON = 0.1  # temperature of the targets; at 0.5 two clusters share two classes for ever (studies/cold-start.md)
ITERATIONS = 5  # of the balancing; the rows come last and are exact


@torch.no_grad()
def balanced_targets(logits: Tensor, *, epsilon: float = EPSILON, iterations: int = ITERATIONS) -> Tensor:
    """The assignment nearest to the logits in which all clusters hold as many clips (Sinkhorn and Knopp 1967).

    Args:
        logits: `[B, K]`.
        epsilon: temperature of the targets, > 0.
        iterations: of scaling columns to B / K and rows to 1 in turn.

    Returns:
        `[B, K]` float32, rows on the simplex, without a gradient.
    """
    log_q = logits.float() / epsilon
    for _ in range(iterations):
        log_q = log_q - torch.logsumexp(log_q, dim=0)  # B / K each, up to a constant that the rows take out
        log_q = log_q - torch.logsumexp(log_q, dim=1, keepdim=True)
    return log_q.exp()


def swap_loss(logits: Tensor, other: Tensor) -> Tensor:
    """Cross-entropy of each view against the balanced assignment of the other, in nats a clip; a scalar.

    Args:
        logits, other: `[B, K]` of two views of the same clips, of which one may be the clip itself.
    """
    there = F.cross_entropy(other, balanced_targets(logits))
    back = F.cross_entropy(logits, balanced_targets(other))
    return 0.5 * (there + back)
