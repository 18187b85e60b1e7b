"""Fabricated studies with known answers, written through the real tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from catuvac.results import append_history, append_trial

K = 5


def trial(number: int, **changes: Any) -> dict[str, Any]:
    """A complete trial whose every score is given or plain."""
    return {
        "study": "planted",
        "trial_id": f"t{number:02d}",
        "number": number,
        "corpus": "synthetic",
        "method": "cat_uvac",
        "n_clusters": K,
        "seed": 0,
        "arm": "tpe",
        "status": "complete",
        "objective": 0.5,
        "epochs": 4,
        "wall_seconds": 30.0,
        "config_hash": f"hash{number}",
        "revision": "1a2b3c4",
        "started_at": f"2025-01-01T00:00:{number:02d}Z",
        "config/tau_start": 1.0,
        "config/tau_end": 0.5,
        "config/beta": 1.0,
        "config/split": "grouped",
        "config/group": "speaker",
        "val/silhouette_p": 0.8,
        "val/clusters_used": 5.0,
        "val/degenerate": False,
        **changes,
    }


def evaluations(number: int, entropies: list[float]) -> list[dict[str, Any]]:
    """One evaluation per epoch from 1, with τ halving from 1."""
    return [
        {
            "study": "planted",
            "trial_id": f"t{number:02d}",
            "epoch": epoch,
            "tau": 0.5 ** (epoch - 1),
            "lr": 1e-3,
            "loss/total": 1.0,
            "val/entropy_y": entropy,
        }
        for epoch, entropy in enumerate(entropies, start=1)
    ]


def falling_with_tau_end(folder: Path, *, labels: bool = True) -> Path:
    """Six complete trials: the objective falls with tau_end without exception, and clusters collapse above 0.4.

    Trial 0 has the best objective (0.9, accuracy 0.70); trial 2 the best accuracy (0.75). A stopped, a diverged and an
    error trial would each spoil the answer if they were counted.
    """
    accuracies = [0.70, 0.65, 0.75, 0.50, 0.45, 0.40]
    for i, acc in enumerate(accuracies):
        changes: dict[str, Any] = {"config/tau_end": 0.1 * (i + 1), "objective": 0.9 - 0.1 * i}
        changes |= {"val/clusters_used": 5.0 if i < 4 else 2.0}
        changes |= {"val/acc": acc, "val/ami": 0.6, "val/ami_speaker": 0.1} if labels else {"val/acc": None}
        append_trial(folder, trial(i, **changes))
        append_history(folder, evaluations(i, [1.5, 1.0, 0.5, 0.1 * i]))
    append_trial(folder, trial(6, status="stopped", objective=0.99, **{"config/tau_end": 0.9, "val/acc": 0.99}))
    append_history(folder, evaluations(6, [9.0]))
    append_trial(folder, trial(7, status="diverged", objective=0.0, **{"config/tau_end": 0.05, "val/acc": 0.0}))
    append_trial(folder, trial(8, status="error", objective=None, epochs=None, **{"val/silhouette_p": None}))
    return folder
