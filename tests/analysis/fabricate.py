"""Studies in memory with known effects: a design, noise, and whatever the test plants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator

from analysis.trials import Study
from catuvac.training.schedules import anneal

K = 10
Planted = Callable[[pd.DataFrame, Generator], Mapping[str, Any]]


def study(
    n: int = 64,
    *,
    seed: int = 0,
    arm: str = "qmc",
    corpus: str = "fsdd",
    name: str = "fabricated",
    planted: Planted | None = None,
    evaluations: int = 0,
) -> Study:
    """A study of n complete trials whose scores are noise, but for those that `planted(design, rng)` returns.

    Args:
        n: trials.
        seed: of everything that is drawn.
        arm: of every trial.
        corpus: of every trial.
        name: of the study.
        planted: columns by name from the table of settings (`config/…`); any column of the table may be replaced.
        evaluations: rows of history a trial, 0 for none.
    """
    rng = np.random.default_rng(seed)
    start = np.exp(rng.uniform(np.log(0.5), np.log(5.0), n))
    end = start * np.exp(rng.uniform(np.log(0.05), 0.0, n))
    shape = rng.choice(["exponential", "linear", "cosine"], n)
    design = pd.DataFrame(
        {
            "config/tau_start": start,
            "config/tau_end": end,
            "config/tau_mean": [
                np.mean([anneal(a, b, progress=p, shape=s) for p in np.linspace(0, 1, 51)])
                for a, b, s in zip(start, end, shape, strict=True)
            ],
            "config/tau_schedule": shape,
            "config/beta": np.exp(rng.uniform(np.log(0.01), 0.0, n)),
            "config/latent_dim": rng.integers(1, 17, n),
            "config/epochs": evaluations or 30,
        }
    )
    scores = {
        "objective": rng.uniform(0.1, 0.5, n),
        "val/acc": rng.uniform(0.2, 0.5, n),
        "val/nmi": rng.uniform(0.1, 0.5, n),
        "val/ari": rng.uniform(0.0, 0.3, n),
        "val/ami_speaker": rng.uniform(0.0, 0.3, n),
        "val/clusters_used": rng.integers(3, K + 1, n).astype(float),
        "val/effective_clusters": rng.uniform(3, K, n),
        "val/largest_share": rng.uniform(0.1, 0.5, n),
        "val/mutual_information": rng.uniform(0.55, 1.0, n) * np.log(K),  # decided,
        "val/entropy_y": rng.uniform(0.0, 1.0, n),
        "val/confidence": rng.uniform(0.5, 1.0, n),
        "val/churn": rng.uniform(0.0, 0.1, n),
        "val/active_units": rng.integers(0, 5, n).astype(float),
    }
    for space in "xzp":
        scores |= {
            f"val/silhouette_{space}": rng.uniform(-0.1, 0.9, n),
            f"val/dbi_{space}": rng.uniform(0.1, 3.0, n),
            f"val/chi_{space}": rng.uniform(1.0, 500.0, n),
            f"val/dispersion_{space}": rng.uniform(0.1, 20.0, n),
        }
    scores["val/ami"] = np.random.default_rng([seed, 1]).uniform(0.1, 0.5, n)
    facts = {
        "study": name,
        "trial_id": [f"t{i:05}" for i in range(n)],
        "number": np.arange(n),
        "corpus": corpus,
        "method": "cat_uvac",
        "n_clusters": K,
        "seed": np.arange(n),
        "arm": arm,
        "status": "complete",
        "epochs": evaluations or 30,
        "wall_seconds": rng.uniform(20, 60, n),
        "config_hash": [f"h{i}" for i in range(n)],
        "revision": "1a2b3c4",
        "started_at": "2025-01-01T00:00:00+00:00",
        "failure": None,
        "val/degenerate": False,
    }
    trials = pd.DataFrame({**facts, **scores}).join(design)
    for column, values in (planted(design, rng) if planted else {}).items():
        trials[column] = values
    # As the tables come from disk: pandas' nullable types.
    return Study(name=name, trials=trials.convert_dtypes(), history=_history(trials, evaluations, rng))


def _history(trials: pd.DataFrame, evaluations: int, rng: Generator) -> pd.DataFrame:
    """Entropy and churn that fall, losses that fall, effective clusters that rise, all with noise."""
    n, progress = len(trials), np.linspace(1 / max(1, evaluations), 1, evaluations)
    rows = n * evaluations
    tau = [
        anneal(row["config/tau_start"], row["config/tau_end"], progress=p, shape=row["config/tau_schedule"])
        for row in trials.to_dict("records")
        for p in progress
    ]
    p = np.tile(progress, n)
    churn = np.maximum(0.0, 0.3 * (1 - p) + rng.normal(0, 0.01, rows))
    churn[:: max(1, evaluations)] = np.nan  # the first evaluation has none before it
    return pd.DataFrame(
        {
            "study": np.repeat(trials["study"].to_numpy(dtype=str), evaluations),
            "trial_id": np.repeat(trials["trial_id"].to_numpy(dtype=str), evaluations),
            "epoch": np.tile(np.arange(1, evaluations + 1), n),
            "tau": np.asarray(tau, dtype=float),
            "lr": 1e-3 * 0.1**p,
            "loss/total": 100 - 50 * p + rng.normal(0, 1, rows),
            "loss/recon": 95 - 50 * p + rng.normal(0, 1, rows),
            "loss/kl_y": 2 * p + rng.normal(0, 0.05, rows),
            "loss/kl_z": 3 * p + rng.normal(0, 0.05, rows),
            "val/entropy_y": np.maximum(0.0, 2 * (1 - p) + rng.normal(0, 0.05, rows)),
            "val/effective_clusters": 1 + (K - 1) * p,
            "val/clusters_used": np.ceil(1 + (K - 1) * p),
            "val/kl_y": 2 * p,
            "val/kl_z": 3 * p,
            "val/churn": churn,
            "val/confidence": 0.1 + 0.9 * p,
        }
    ).convert_dtypes()
