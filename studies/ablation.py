"""What makes clusters form? Trains with each part of the method alone and combined, over seeds, next to k-means.

    python studies/ablation.py --classes 5 10 --overlaps 0 0.4
    python studies/ablation.py --preset fsdd --data-root DIR --arms paper start+term --seeds 0 1 2

On generated scenes the true classes are known, so that a missed class is a failure of the method. The test split is
read once, at the end of each training; finished cells are kept in OUT/ablation.csv and not run again. Arms of one seed
that have the same start by invariance share it, so that `seconds` excludes the start for all but the first of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from catuvac import artifacts, results
from catuvac.config import PAPER_PROTOCOL, Config, check_threads, preset, unknown
from catuvac.errors import CatuvacError, guarded
from catuvac.io import expand_home, write_text

# The settings that each arm changes in the preset, which starts by invariance and keeps the term.
ARMS: dict[str, dict[str, Any]] = {
    "start+term": {},
    "paper": PAPER_PROTOCOL,
    "paper+marginal": {**PAPER_PROTOCOL, "beta_marginal": 20.0},
    "start": {"invariance": 0.0},
    "term": {"cluster_init": "random", "warmup_share": 0.0, "n_init": 1},
    "start+weak-term": {"invariance": 1.0},
    "start+term+marginal": {"beta_marginal": 20.0},
    "straight-through": {"y_estimator": "straight_through"},
    "exact": {"y_estimator": "exact"},
    "n-init-1": {"n_init": 1},
    "n-init-3": {"n_init": 3},
    "z-off": {"sigma": 3.3},  # at this sigma a dimension of z costs more than it explains
    "kmeans-start": {"cluster_init": "kmeans", "invariance": 0.0, "n_init": 1},
}
SCORES = ("acc", "nmi", "ami", "clusters_used", "y_decided", "kl_z")  # of the test split
# Candidates for selecting trainings without labels, on the validation split; the second was the default before.
SELECTORS = ("invariant_information", "silhouette_x", "mutual_information", "elbo")
SETTINGS = ["preset", "classes", "overlap", "epochs", "arm"]
KEY = [*SETTINGS, "seed"]
TABLE = "ablation.csv"
CLIPS_A_CLUSTER = 12  # minimum in a batch, on generated scenes: the balance is over a batch


@dataclass(kw_only=True)
class Ablation:
    """Train a preset with parts of its training left out, over a grid of arms, overlaps and seeds."""

    preset: str = "synthetic"
    """name of the preset, as in catuvac train"""
    arms: tuple[str, ...] = ("start+term",)
    """start+term (the preset itself), paper, paper+marginal, start, term, start+weak-term, start+term+marginal,
    straight-through, exact, n-init-1, n-init-3, z-off, kmeans-start"""
    classes: tuple[int, ...] = (5, 10)
    """synthetic: numbers of classes, and of clusters"""
    overlaps: tuple[float, ...] = (0.0,)
    """synthetic: shares of the common background, in [0, 1]"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """seeds of the training"""
    epochs: int | None = None
    """epochs of each training; default: the preset's"""
    data_root: Path | None = None
    """folder with the recordings (not needed for synthetic)"""
    threads: int = 0
    """CPU threads of torch; 0 keeps torch's default"""
    out: Path = field(default_factory=lambda: Path("results"))
    """folder for ablation.csv"""

    def run(self) -> None:
        if not (self.arms and self.seeds and (self.classes and self.overlaps)):
            raise CatuvacError("give at least one arm, one number of classes, one overlap and one seed")
        for arm in self.arms:
            if arm not in ARMS:
                raise CatuvacError(unknown("arm", arm, ARMS))
        check_threads(self.threads)
        import torch  # slow to import: --help should not wait for it

        if self.threads:
            torch.set_num_threads(self.threads)
        # All settings are built first: an invalid one should not end a grid after hours.
        cells = [
            (arm, base.with_settings({**ARMS[arm], "seed": seed}))
            for seed in self.seeds
            for base in self._bases()
            for arm in self.arms
        ]
        busy = f"another process writes {self.out / TABLE}; wait until it ends, or give another --out"
        with artifacts.alone(self.out, busy=busy, flag="--out"):
            rows = self._rows(cells)
        print(table(rows).to_string(index=False))
        print(selectors(rows).to_string(index=False))

    def _rows(self, cells: list[tuple[str, Config]]) -> pd.DataFrame:
        """Returns the table with the cells that it lacked, each written as soon as it is scored."""
        path = self.out / TABLE
        rows = results.records(pd.read_csv(path)) if path.exists() else []
        done = {tuple(row[name] for name in KEY) for row in rows}
        starts: dict[str, Mapping[str, Any]] = {}
        for number, (arm, config) in enumerate(cells, start=1):
            training = config.training
            key = (self.preset, config.model.n_clusters, config.corpus.overlap, training.epochs, arm, training.seed)
            if key not in done:
                rows.append(dict(zip(KEY, key, strict=True)) | self._cell(config, starts))
                write_text(path, pd.DataFrame(rows).to_csv(index=False))
                print(f"{number}/{len(cells)}", rows[-1], flush=True)
        return pd.DataFrame(rows)

    def _bases(self) -> list[Config]:
        """Returns the preset, or on generated scenes one per number of classes and overlap."""
        base = preset(self.preset)
        if self.epochs is not None:
            base = base.with_settings({"epochs": self.epochs})
        if base.corpus.corpus != "synthetic":
            return [base]
        return [
            base.with_settings(
                {
                    "n_classes": classes,
                    "n_clusters": classes,
                    "overlap": overlap,
                    "batch_size": max(base.training.batch_size, CLIPS_A_CLUSTER * classes),
                }
            )
            for classes in self.classes
            for overlap in self.overlaps
        ]

    def _cell(self, config: Config, starts: dict[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Trains and scores one cell; arms with the same start settings share one start through `starts`."""
        from catuvac.data import store
        from catuvac.evaluation.objectives import scored
        from catuvac.training import run_dir
        from catuvac.training.run import TrainingRun

        features = store.prepare(config, data_root=self.data_root, cache_dir=store.default_cache_dir(), progress=False)
        run, name = TrainingRun(config, features), config.start_hash()
        report = list(run.from_shared_start(partial(starts.get, name), partial(starts.__setitem__, name)))[-1]
        label_free = {**scored(report, n_clusters=config.model.n_clusters), "val/objective_elbo": report["val/elbo"]}
        scores, kmeans = run.evaluate("test"), run_dir.kmeans_scores(config, features, split="test")
        return {
            **{name: scores.get(name) for name in SCORES},
            **{name: label_free[f"val/objective_{name}"] for name in SELECTORS},
            **{f"kmeans_{name}": kmeans.get(name) for name in ("acc", "nmi", "ami")},
            "seconds": round(run.seconds, 1),
            "status": report["status"],
        }


def table(cells: pd.DataFrame) -> pd.DataFrame:
    """Returns the median and range of the accuracy over the seeds, one row per setting."""

    rows = []
    for where, group in cells.groupby(SETTINGS, sort=False):
        acc, used = group["acc"], group["clusters_used"]
        rows.append(
            {
                **dict(zip(SETTINGS, where, strict=True)),
                "seeds": len(group),
                "decided": int(group["y_decided"].sum()),
                "ACC median": acc.median(),
                "ACC range": f"{acc.min():.2f}–{acc.max():.2f}",
                "AMI median": group["ami"].median(),
                "clusters used": f"{used.min():.0f}–{used.max():.0f}",
                "KL_z, nats": group["kl_z"].median(),
                "k-means ACC median": group["kmeans_acc"].median(),
            }
        )
    return pd.DataFrame(rows).round(3)


def selectors(cells: pd.DataFrame) -> pd.DataFrame:
    """Measures how well each label-free score on the validation split ranks trainings by their AMI on the test split.

    The regret is the best training's AMI minus that of the training that the score selects.
    """
    rows = []
    for where, group in cells[cells["ami"].notna()].groupby(["preset", "classes", "overlap"]):
        for name in SELECTORS:
            chosen = group["ami"].iloc[int(group[name].to_numpy().argmax())]
            rows.append(
                {
                    **dict(zip(("preset", "classes", "overlap"), where, strict=True)),
                    "selector": name,
                    "trainings": len(group),
                    "Spearman with AMI": group[name].corr(group["ami"], method="spearman"),
                    "regret, AMI": group["ami"].max() - chosen,
                }
            )
    return pd.DataFrame(rows).round(3)


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(Ablation, args=expand_home(sys.argv[1:]), description=__doc__).run()))
