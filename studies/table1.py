"""The paper's Table I: every method on every corpus, over seeds, as one Ray job.

    ray job submit --working-dir . -- python studies/table1.py --corpora fsdd urbansound8k --data-root /abs/data

Each cell is one method on one corpus with one K and one seed; all methods on a corpus use the same features, split and
number of epochs, and the test split is read once, at a cell's end. The script writes STORAGE/NAME/ with trials.parquet,
history.parquet and the table as table1.parquet, .md, .tex and .html, which also lists the paper's numbers.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import tyro
from options import ClusterFlags, GpuFlags

from catuvac.config import Config, ConfigError, preset, unknown
from catuvac.errors import guarded
from catuvac.experiments import options
from catuvac.io import expand_home

if TYPE_CHECKING:
    from catuvac.experiments.comparison import Comparison

PRESETS = {  # the paper evaluates TAU2019 and UrbanSound8K with two K
    "synthetic": ("synthetic",),
    "fsdd": ("fsdd",),
    "arabic_digits": ("arabic_digits",),
    "audiomnist": ("audiomnist",),
    "tau2019": ("tau2019_k10", "tau2019_k5"),
    "urbansound8k": ("urbansound8k_k10", "urbansound8k_k5"),
}


@dataclass(kw_only=True)
class Table1(ClusterFlags, GpuFlags):
    """Fit every method on every corpus and write the table."""

    corpora: tuple[str, ...] = ("audiomnist", "tau2019", "urbansound8k")
    """synthetic, fsdd, arabic_digits, audiomnist, tau2019, urbansound8k; the default is the paper's"""
    methods: tuple[str, ...] = ("labels", "kmeans", "pca_gmm", "uvac", "cat_uvac_paper", "cat_uvac")
    """also available: dcn, idec, dec and vade, which need catuvac[peers]; kmeans_embedding and pca_gmm_embedding, on
    Google's speech embedding instead of the corpus's features, which need catuvac[embeddings]"""
    n_clusters: tuple[int, ...] = ()
    """K; default: the paper's for each corpus"""
    seeds: int = 3
    """number of seeds (0, 1, …) of the weights, starts and batches; all use the same split"""
    epochs: int | None = None
    """epochs of every method that trains; default: the corpus's preset (500 for the paper's)"""
    split: Literal["preset", "random", "grouped"] = "preset"
    """grouped keeps each speaker, recording or location on one side of the split"""
    name: str = ""
    """name of this table and of its folder in storage; default: table1 and time"""
    dry_run: bool = False
    """print the cells and their cost, and run nothing"""
    tflops: float = 10.0
    """dry run: assumed sustained speed of one GPU, in 10^12 floating-point operations per second"""

    def run(self) -> None:
        if self.dry_run:
            if not self.tflops > 0:
                raise ConfigError(f"tflops must be positive, got {self.tflops:g}")
            self._print_cost()
            return
        began = time.monotonic()
        from analysis import table1
        from catuvac.experiments.base import duration
        from catuvac.tune import driver, preflight

        grid = self._grid()
        print(f"table      {grid.folder}")
        print(f"cells      {grid.trials}, {grid.epochs} epochs in all")
        sys.stdout.flush()
        driver.connect()
        for line in preflight.preflight(grid, config=None, features=None):
            print(line, flush=True)
        driver.run_grid(grid, resume=self.resume)
        paths = table1.write(
            grid.folder,
            notes=(f"Wall time {duration(time.monotonic() - began)}{' since resuming' if self.resume else ''}.",),
        )
        print(f"wall time  {duration(time.monotonic() - began)}")
        for path in paths:
            print(f"written    {path}")

    def _configs(self) -> list[Config]:
        """Returns one configuration per corpus and K."""
        if self.seeds < 1:
            raise ConfigError(f"seeds must be at least 1, got {self.seeds}")
        configs: dict[str, Config] = {}
        for corpus in self.corpora:
            if corpus not in PRESETS:
                raise ConfigError(unknown("corpus", corpus, PRESETS))
            for name in PRESETS[corpus]:
                for k in self.n_clusters or (preset(name).model.n_clusters,):
                    config = self._split(preset(name).with_settings({"n_clusters": k}))
                    configs[config.hash()] = config
        return list(configs.values())

    def _split(self, config: Config) -> Config:
        if self.split == "preset":
            return config
        from catuvac.data.corpora import CORPORA

        corpus = CORPORA[config.corpus.corpus]
        if self.split == "grouped" and not corpus.group:
            raise ConfigError(f"corpus {corpus.name} has no groups to keep together; leave out --split grouped")
        group = corpus.group if self.split == "grouped" else ""
        return config.updated({"split": {"split": self.split, "group": group}})

    def _methods(self, n_clusters: int, n_classes: int | None) -> list[tuple[str, int]]:
        """Returns each method and its number of seeds; labels only if K is the number of classes, as in the paper."""
        chosen = [method for method in self.methods if method != "labels" or n_classes == n_clusters]
        return [(method, 1 if method == "labels" else self.seeds) for method in chosen]

    def _grid(self) -> Comparison:
        from catuvac.experiments import comparison
        from catuvac.tune import driver

        name = self.name or f"table1-{datetime.now():%Y%m%d-%H%M%S}"
        cells = []
        for config in self._configs():
            prepared = options.prepare(config, data_root=self.data_root, cache_dir=self.cache_dir)
            features = prepared.open()
            entries = {config.features: prepared}
            n_classes = features.clips["label"].nunique() if "label" in features.clips else None
            k = config.model.n_clusters
            epochs = config.training.epochs if self.epochs is None else self.epochs
            for method, seeds in self._methods(k, n_classes):
                for seed in range(seeds):
                    settings = comparison.cell_config(config, method=method, epochs=epochs, n_clusters=k, seed=seed)
                    if settings.features not in entries:  # an embedding's
                        entries[settings.features] = options.prepare(
                            settings, data_root=self.data_root, cache_dir=self.cache_dir
                        )
                    cells.append(comparison.Cell(method, settings, entries[settings.features]))
        made = comparison.Comparison(
            name=name,
            # The longest cells first: the last to start are short, so that no core waits long for the others.
            cells=tuple(sorted(cells, key=lambda cell: -cell.epochs)),
            gpus_per_trial=self.gpus_per_trial,
            **self.resources(),
        )
        driver.check_folder(made, resume=self.resume)
        return made

    def _print_cost(self) -> None:
        """Prints the plan of a complete run; with a --data-root it reads the lists of clips, and otherwise nothing."""
        from rich.console import Console
        from rich.table import Table

        from catuvac.data import features
        from catuvac.data.corpora import CORPORA, index
        from catuvac.experiments import comparison
        from catuvac.training import cost

        table = Table("corpus", "K", "method", "cells", "clips", "[T, F]", "epochs", "MFLOP/clip", "GPU-hours")
        for column in table.columns:
            column.no_wrap = True
        total = cells = 0.0
        for config in self._configs():
            corpus = CORPORA[config.corpus.corpus]
            clips = config.corpus.limit or corpus.full
            if self.data_root is not None or not corpus.needs_root:
                clips = len(index(config.corpus, self.data_root).clips)
            train = round(clips * (1 - config.split.val_fraction - config.split.test_fraction))
            k, shape = config.model.n_clusters, list(features.frames(config.features))
            epochs = config.training.epochs if self.epochs is None else self.epochs
            classes = config.corpus.n_classes if corpus.name == "synthetic" else 10
            for method, seeds in self._methods(k, classes):
                settings = comparison.cell_config(config, method=method, epochs=epochs, n_clusters=k, seed=0)
                trained = method in (*comparison.PEERS, *comparison.VARIATIONAL)
                flops = 0
                if trained:
                    flops = cost.peer_flops(settings) if method in comparison.PEERS else cost.training_flops(settings)
                hours = flops * train * epochs * seeds / (self.tflops * 1e12) / 3600
                total, cells = total + hours, cells + seeds
                table.add_row(
                    *(corpus.name, str(k), method, str(seeds), f"{train:,}", str(shape), str(epochs * trained)),
                    *(f"{flops / 1e6:,.0f}" if trained else "–", f"{hours:.3g}" if trained else "–"),
                )
        Console(width=100).print(table)
        print(f"{cells:.0f} cells, {total:.3g} GPU-hours at {self.tflops:g} TFLOP/s; clips of the training split.")
        print("The cost counts a step's matrix products, forward and backward; not k-means, the mixture or the scores.")


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(Table1, args=expand_home(sys.argv[1:]), description=__doc__).run()))
