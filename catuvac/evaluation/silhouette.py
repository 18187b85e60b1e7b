"""The mean Silhouette, exactly, on any device: in tiles, so that memory does not grow with the square of the points."""

from __future__ import annotations

import torch
from torch import Tensor

CPU_TILE = 512  # points on a side; of float64, 2 MiB, which stay in a core's cache
GPU_TILE = 4096  # 128 MiB: enough work for every launch


def silhouette(points: Tensor, clusters: Tensor) -> float:
    """Returns the mean of (b - a) / max(a, b): a is a point's mean distance within its cluster, b to the nearest other.

    Equals scikit-learn's `silhouette_score` up to rounding: 0 for a point that is alone in its cluster. Every distance
    is computed once, for both of its points.

    Args:
        points: `[N, D]` float64. Float32 is not enough: near 0, as between saturated probabilities, a distance that
            comes from a matrix product keeps only half of the digits.
        clusters: `[N]` integers from 0 to k - 1, each of them used, k at least 2.
    """
    order = torch.argsort(clusters, stable=True)
    points, clusters = points[order], clusters[order]
    sizes = torch.bincount(clusters)
    squares = points.square().sum(dim=1, keepdim=True)
    ones = torch.ones_like(squares)
    # |p - q|² = (-2 p, |p|², 1) · (q, 1, |q|²): the product alone gives the squared distances.
    left, right = torch.cat([-2 * points, squares, ones], dim=1), torch.cat([points, ones, squares], dim=1)

    sums = points.new_zeros(len(sizes), len(points))  # [k, N] of distances to each cluster's points
    tiles = _tiles(sizes.tolist(), CPU_TILE if points.device.type == "cpu" else GPU_TILE)
    for row, (of_rows, top, bottom) in enumerate(tiles):
        for of_columns, start, end in tiles[row:]:
            distances = torch.mm(left[top:bottom], right[start:end].T).clamp_min_(0).sqrt_()
            if start == top:
                distances.fill_diagonal_(0)  # from a point to itself
            else:
                sums[of_rows, start:end] += distances.sum(dim=0)
            sums[of_columns, top:bottom] += distances.sum(dim=1)

    assigned = clusters[None]
    a = sums.gather(0, assigned)[0] / (sizes[clusters] - 1).clamp_min(1)
    b = (sums / sizes[:, None]).scatter(0, assigned, torch.inf).amin(dim=0)
    score = torch.where(sizes[clusters] > 1, (b - a) / torch.maximum(a, b), 0.0)
    return float(score.nan_to_num(0.0).mean())  # NaN: a and b are both 0


def _tiles(sizes: list[int], most: int) -> list[tuple[int, int, int]]:
    """Cuts sorted points into runs of at most `most`, none of them across two clusters: (cluster, start, end)."""
    tiles, start = [], 0
    for cluster, size in enumerate(sizes):
        end = start + size
        tiles += [(cluster, i, min(i + most, end)) for i in range(start, end, most)]
        start = end
    return tiles
