"""A comparison as a grid of cells, one per method, corpus, K and seed, as in Table I. Does not use Ray.

On a corpus, every method has the same features and split, and the same number of epochs if it is trained in epochs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast, get_args

from catuvac.config import PAPER_METHOD, PAPER_PROTOCOL, SPEECH_EMBEDDING, Config, ConfigError, unknown
from catuvac.data.store import FeatureSet, Prepared
from catuvac.experiments.base import Experiment, columns
from catuvac.models.clustpy_baselines import Peer, peer
from catuvac.models.shallow import Assign, Assignment, kmeans, pca_gmm
from catuvac.training import run_dir
from catuvac.training.run import Report, TrainingRun

VARIATIONAL = ("uvac", PAPER_METHOD, "cat_uvac")
PEERS: tuple[str, ...] = get_args(Peer)
SHALLOW = {"kmeans": kmeans, "pca_gmm": pca_gmm}
# On frames of a pretrained embedding, instead of the features that all other methods see.
EMBEDDED = {f"{name}_embedding": fit for name, fit in SHALLOW.items()}
METHODS = ("labels", *SHALLOW, *EMBEDDED, *PEERS, *VARIATIONAL)

BATCH = 64  # clips, for methods that do not balance batches: IDEC loses a third of its accuracy at 256

# UVAC clusters in z, so z must be worth its cost: ten dimensions, as in VaDE, and sigma is their residual. Its paper
# weights no term: beta 1. The first quarter of the epochs learns the z from which its mixture starts.
UVAC: dict[str, Any] = {
    "method": "uvac",
    "latent_dim": 10,
    "likelihood": "gaussian",
    "sigma": 0.0,
    "beta": 1.0,
    "beta_on": "kl",
    "beta_marginal": None,
    "beta_information": None,
    "cluster_init": "kmeans",
    "warmup_share": 0.25,
    "n_init": 1,
    "invariance": 0.0,
    "batch_size": BATCH,
}

# Frames of the default embedding, standardised over the training clips; a clip has the corpus's length.
EMBEDDING: dict[str, Any] = {
    "kind": "embedding",
    "sample_rate": SPEECH_EMBEDDING[0],
    "n_bands": SPEECH_EMBEDDING[1],
    "time_fit": "pad",
    "clip_norm": "none",
    "corpus_norm": "mean_var",
}


@dataclass(frozen=True)
class Cell:
    """One method on prepared features; `config` has K, the seed, the epochs and all other settings of the method."""

    method: str  # one of METHODS
    config: Config
    features: Prepared
    setting: str = ""  # name of the settings if cells differ in more than the method: "top1", "paper"

    @property
    def trial_id(self) -> str:
        """A unique id in the grid, such as "fsdd-k10-uvac-s0", or "fsdd-k10-top1-s40" for a named setting."""
        corpus, model, seed = self.config.corpus.corpus, self.config.model, self.config.training.seed
        return f"{corpus}-k{model.n_clusters}-{self.setting or self.method}-s{seed}"

    @property
    def epochs(self) -> int:
        """The number of epochs that the method trains; 0 if it is not trained in epochs."""
        return self.config.training.epochs if self.method in (*PEERS, *VARIATIONAL) else 0

    def training(self, device: str) -> TrainingRun:
        """Creates the training run of a variational method."""
        return TrainingRun(self.config, self.features.open(), device=device)

    def fit(self, device: str) -> Report:
        """Fits one of the other methods and scores it on the validation and test splits."""
        features, began = self.features.open(), time.perf_counter()
        report: Report = {"epoch": self.epochs, "status": "complete"}
        try:
            assign = None if self.method == "labels" else self._assign(features, device)
        except (ValueError, AssertionError) as error:
            if self.method not in PEERS:
                raise
            # ClustPy raises these if a training diverged or lost a cluster, which the same seed would repeat.
            print(f"{self.trial_id} diverged: {error}")
            return report | {"status": "diverged", "wall_seconds": time.perf_counter() - began}
        for split in ("val", "test"):
            rows = features.splits[split]
            if assign is None:
                labels = features.labels(rows)
                assert labels is not None  # a corpus without labels has no such cell
                assignment = Assignment(labels, probabilities=None, z=None)
            else:
                assignment = assign(features.x[rows])
            scores = run_dir.assignment_scores(assignment, features, split=split)
            report |= {f"{split}/{name}": value for name, value in scores.items()}
        return report | test_facts(features) | {"wall_seconds": time.perf_counter() - began}

    def _assign(self, features: FeatureSet, device: str) -> Assign:
        train = features.x[features.splits["train"]]
        k, training = self.config.model.n_clusters, self.config.training
        if fit := (SHALLOW | EMBEDDED).get(self.method):
            return fit(train, n_clusters=k, seed=training.seed)
        return peer(
            cast(Peer, self.method),
            train,
            n_clusters=k,
            epochs=training.epochs,
            batch_size=BATCH,
            seed=training.seed,
            device=device,
        )


@dataclass(frozen=True, kw_only=True)
class Comparison(Experiment):
    """The cells to run, and their resources."""

    cells: tuple[Cell, ...]
    arm: str = "grid"  # value of the column in the table of trials
    margin: float | None = None  # a smaller effect does not matter; from the search that the grid confirms

    def __post_init__(self) -> None:
        super().__post_init__()
        ids = [cell.trial_id for cell in self.cells]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        self._check({"the grid has no cells": len(ids) > 0, f"cells named twice: {', '.join(twice)}": not twice})

    @property
    def trials(self) -> int:
        """The number of cells."""
        return len(self.cells)

    @property
    def configs(self) -> list[Config]:
        """The configs of the variational methods' cells, whose training runs write checkpoints."""
        return [cell.config for cell in self.cells if cell.method in VARIATIONAL]

    @property
    def features(self) -> list[Prepared]:
        """The distinct features of all cells."""
        return list({cell.features.path: cell.features for cell in self.cells}.values())

    @property
    def epochs(self) -> int:
        """The total number of epochs of all cells."""
        return sum(cell.epochs for cell in self.cells)

    def trained_epochs(self, at_once: int) -> int:
        """Returns how many of these epochs are trained if `at_once` cells begin together."""
        starts = {cell.config.start_hash(): cell.config.training.start_epochs for cell in self.cells}
        return self.epochs - sum(epochs * max(0, self._starts[name] - at_once) for name, epochs in starts.items())

    @property
    def shared_states(self) -> int:
        """The number of starts that are stored for several cells."""
        return sum(count > 1 for count in self._starts.values())

    def design(self) -> dict[str, Any]:
        """Returns what must not change when the grid is resumed: each cell's settings, but not its resources."""
        margin = {} if self.margin is None else {"margin": self.margin}
        return {**margin, **{cell.trial_id: cell.config.hash() for cell in self.cells}}

    def identify(self, point: Mapping[str, Any], trial_id: str) -> dict[str, Any]:
        """Returns the columns of a cell's row that do not depend on its outcome; Ray's `trial_id` is not used."""
        del trial_id
        cell = self.cells[point["number"]]
        return {
            "trial_id": cell.trial_id,
            "number": point["number"],
            "method": cell.method,
            "arm": self.arm,
            **columns(cell.config),
        }

    def describe(self, point: Mapping[str, Any]) -> str:
        """Returns the cell's id."""
        cell: Cell = self.cells[point["number"]]
        return cell.trial_id

    @cached_property
    def _starts(self) -> Counter[str]:
        """The number of cells with each start."""
        return Counter(config.start_hash() for config in self.configs)

    def shares_start(self, point: Mapping[str, Any]) -> bool:
        """Returns whether other cells differ only in settings that the start does not use, such as the temperature."""
        return self._starts[self.cells[point["number"]].config.start_hash()] > 1

    def objective(self, report: Mapping[str, Any]) -> float | None:
        """Returns the first objective's value; None if the grid has no objective or the method has no such score."""
        name = f"val/objective_{self.objectives[0]}" if self.objectives else ""
        return float(report[name]) if name in report else None


def test_scores(run: TrainingRun) -> Report:
    """Returns the test scores that a finished run adds to its last report, once; a diverged run has none."""
    if run.last_report["status"] != "complete":
        return {}
    return {f"test/{name}": value for name, value in run.evaluate("test").items()} | test_facts(run.features)


def test_facts(features: FeatureSet) -> dict[str, float]:
    """Returns the numbers of test clips and, if known, of classes: accuracy is meaningless if K differs from it."""
    rows = features.splits["test"]
    clips = features.by_clip(rows)
    facts = {"test/clips": float(len(rows if clips is None else clips.rows))}
    if "label" in features.clips:
        facts["test/n_classes"] = float(features.clips["label"].nunique())
    return facts


def cell_config(config: Config, *, method: str, epochs: int, n_clusters: int, seed: int) -> Config:
    """Returns the settings of a cell, derived from those of its corpus's preset.

    Raises:
        ConfigError: an unknown method or a bad value.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    overrides = {"uvac": UVAC, PAPER_METHOD: PAPER_PROTOCOL, **dict.fromkeys(EMBEDDED, EMBEDDING)}.get(method, {})
    return config.with_settings({**overrides, "epochs": epochs, "n_clusters": n_clusters, "seed": seed})
