"""The Silhouette in x, z and p against scikit-learn's, and its memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.progress import track
from sklearn.metrics import silhouette_score

from benchmarks import machine
from catuvac.evaluation.metrics import cluster_scores

CLIPS, DIMENSIONS = 24_000, 64


def measure(*, repeats: int, clips: int = CLIPS) -> list[dict[str, Any]]:
    """Returns one row per device and representation, and one for all; ours computes all four scores, theirs one."""
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, machine.CLUSTERS, clips)
    logits = 4 * np.eye(machine.CLUSTERS)[clusters] + rng.normal(size=(clips, machine.CLUSTERS))
    points = {
        "x": rng.normal(size=(machine.CLUSTERS, DIMENSIONS))[clusters] + rng.normal(size=(clips, DIMENSIONS)),
        "z": rng.normal(size=(machine.CLUSTERS, DIMENSIONS))[clusters] / 2 + rng.normal(size=(clips, DIMENSIONS)),
        "p": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
    }
    rows: list[dict[str, Any]] = []
    for device in machine.devices():
        cells = [_cell(space, points[space], clusters, device, repeats) for space in track(points, f"scores, {device}")]
        theirs, ours = (sum(row[name] for row in cells) for name in ("scikit-learn, s", "s"))
        total = {
            "device": device,
            "space": "all",
            "scikit-learn, s": theirs,
            "s": ours,
            "ratio": theirs / ours,
            "largest difference": max(row["largest difference"] for row in cells),
            "peak MiB": max(row["peak MiB"] for row in cells),
        }
        rows += [*cells, total]
    return [{name: _rounded(name, value) for name, value in row.items()} for row in rows]


def _cell(space: str, points: np.ndarray, clusters: np.ndarray, device: str, repeats: int) -> dict[str, Any]:
    def ours() -> float:
        return cluster_scores(points, clusters, device=device)["silhouette"]

    def theirs() -> float:
        return float(silhouette_score(points, clusters))

    cluster_scores(points[:1000], clusters[:1000], device=device)  # excludes what libraries load once
    peak = machine.peak_memory(ours, device)
    took = machine.alternating({"theirs": theirs, "ours": ours}, device=device, repeats=repeats)
    return {
        "device": device,
        "space": f"{space} [{points.shape[0]}, {points.shape[1]}]",
        "scikit-learn, s": took["theirs"],
        "s": took["ours"],
        "ratio": took["theirs"] / took["ours"],
        "largest difference": abs(ours() - theirs()),
        "peak MiB": peak,
    }


def _rounded(name: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.0e}" if name == "largest difference" else round(value, 2)
