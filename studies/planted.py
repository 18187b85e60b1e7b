"""Does the model find clusters that are there? Accuracy over the synthetic corpus's overlap, k-means beside it.

    python studies/planted.py

Each cell is one training of the `synthetic` preset; finished cells are kept in OUT/planted.csv and not run again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import tyro

from catuvac.config import preset
from catuvac.errors import CatuvacError, guarded

SETTINGS = ["classes", "cluster_init", "epochs", "overlap"]
KEY = [*SETTINGS, "seed"]


@dataclass(kw_only=True)
class Planted:
    """Train on generated scenes whose classes are known, over a grid of overlaps and seeds."""

    classes: tuple[int, ...] = (5, 10)
    """numbers of classes, and of clusters"""
    overlaps: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    """shares of the common background, in [0, 1]"""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """of the training"""
    cluster_init: str = "kmeans"
    """how q(y|x) starts: kmeans or random"""
    epochs: int | None = None
    """default: the preset's"""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's choice"""
    out: Path = field(default_factory=lambda: Path("results"))
    """folder of planted.csv"""

    def run(self) -> None:
        if not (self.classes and self.overlaps and self.seeds):
            raise CatuvacError("give at least one number of classes, one overlap and one seed")
        import torch  # heavy: --help must not wait for it

        from catuvac import runs

        if self.threads:
            torch.set_num_threads(self.threads)
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "planted.csv"
        rows = pd.read_csv(path).to_dict("records") if path.exists() else []
        done = {tuple(row[name] for name in KEY) for row in rows}
        epochs = preset("synthetic").training.epochs if self.epochs is None else self.epochs
        cells = [(k, self.cluster_init, epochs, o, s) for k in self.classes for o in self.overlaps for s in self.seeds]
        for number, cell in enumerate(cells, start=1):
            if cell not in done:
                rows.append(dict(zip(KEY, cell, strict=True)) | self._cell(*cell))
                runs.write_text(path, pd.DataFrame(rows).to_csv(index=False))
                print(f"{number}/{len(cells)}", rows[-1], flush=True)
        print(table(pd.DataFrame(rows)).to_string(index=False))

    def _cell(self, classes: int, cluster_init: str, epochs: int, overlap: float, seed: int) -> dict[str, float]:
        from catuvac import runs
        from catuvac.data import store
        from catuvac.training import TrainingRun

        corpus = {"n_classes": classes, "n_clusters": classes, "overlap": overlap}
        training = {"cluster_init": cluster_init, "epochs": epochs, "seed": seed}
        config = preset("synthetic").with_settings(corpus | training)
        features = store.prepare(config, data_root=None, cache_dir=store.default_cache_dir(), progress=False)
        run = TrainingRun(config, features)
        status = [report["status"] for report in run][-1]
        scores, kmeans = run.evaluate("test"), runs.kmeans_scores(config, features, split="test")
        return {
            "acc": scores["acc"],
            "nmi": scores["nmi"],
            "clusters_used": scores["clusters_used"],
            "kmeans_acc": kmeans["acc"],
            "kmeans_nmi": kmeans["nmi"],
            "seconds": round(run.seconds, 1),
            "status": status,
        }


def table(cells: pd.DataFrame) -> pd.DataFrame:
    """Median and range of the accuracy over the seeds, a row per setting."""

    def summary(group: pd.DataFrame) -> pd.Series:
        return pd.Series(
            {
                "seeds": len(group),
                "ACC median": group["acc"].median(),
                "ACC range": f"{group['acc'].min():.2f}–{group['acc'].max():.2f}",
                "clusters used": f"{group['clusters_used'].min():.0f}–{group['clusters_used'].max():.0f}",
                "k-means ACC median": group["kmeans_acc"].median(),
                "k-means range": f"{group['kmeans_acc'].min():.2f}–{group['kmeans_acc'].max():.2f}",
            }
        )

    return cells.groupby(SETTINGS).apply(summary, include_groups=False).reset_index().round(3)


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(Planted, description=__doc__).run()))
