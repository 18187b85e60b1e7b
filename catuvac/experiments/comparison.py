"""A comparison as a grid of cells: one method on one corpus with one K and one seed. What Table I is made of; no Ray.

Every method of a corpus sees the same features and split, and the same number of epochs where it has any.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast, get_args

from catuvac.config import PAPER_METHOD, PAPER_PROTOCOL, Config, ConfigError, unknown
from catuvac.data.store import FeatureSet, Prepared
from catuvac.experiments.base import Experiment, columns
from catuvac.models.clustpy_baselines import Peer, peer
from catuvac.models.shallow import Assign, Assignment, kmeans, pca_gmm
from catuvac.training import run_dir
from catuvac.training.run import Report, TrainingRun

VARIATIONAL = ("uvac", PAPER_METHOD, "cat_uvac")
PEERS: tuple[str, ...] = get_args(Peer)
METHODS = ("labels", "kmeans", "pca_gmm", *PEERS, *VARIATIONAL)

BATCH = 64  # clips, of the methods that balance nothing over a batch: IDEC loses a third of its accuracy at 256

# UVAC's clusters lie in z, so z must be worth its cost: ten dimensions, as in VaDE, and a sigma that they leave over.
# Its paper weighs nothing: beta 1. The first quarter of the epochs learns the z that its mixture starts from.
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


@dataclass(frozen=True)
class Cell:
    """One method on prepared features; `config` holds K, the seed, the epochs, and all that the method reads."""

    method: str  # one of METHODS
    config: Config
    features: Prepared
    setting: str = ""  # names the settings where cells differ in more than the method: "top1", "paper"

    @property
    def trial_id(self) -> str:
        """Such as "fsdd-k10-uvac-s0", or "fsdd-k10-top1-s40" of a named setting: unique in a grid."""
        corpus, model, seed = self.config.corpus.corpus, self.config.model, self.config.training.seed
        return f"{corpus}-k{model.n_clusters}-{self.setting or self.method}-s{seed}"

    @property
    def epochs(self) -> int:
        """How many the method trains for; 0 for one that does not."""
        return self.config.training.epochs if self.method in (*PEERS, *VARIATIONAL) else 0

    def training(self, device: str) -> TrainingRun:
        """The training run of a variational method."""
        return TrainingRun(self.config, self.features.open(), device=device)

    def fit(self, device: str) -> Report:
        """Fits one of the other methods and scores it on the validation and the test split."""
        features, began = self.features.open(), time.perf_counter()
        report: Report = {"epoch": self.epochs, "status": "complete"}
        try:
            assign = None if self.method == "labels" else self._assign(features, device)
        except (ValueError, AssertionError) as error:
            if self.method not in PEERS:
                raise
            # How ClustPy ends a training that diverged or lost a cluster; with the same seed it would do so again.
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
            found = run_dir.assignment_scores(assignment, features, split=split)
            report |= {f"{split}/{name}": value for name, value in found.items()}
        return report | test_facts(features) | {"wall_seconds": time.perf_counter() - began}

    def _assign(self, features: FeatureSet, device: str) -> Assign:
        train = features.x[features.splits["train"]]
        k, training = self.config.model.n_clusters, self.config.training
        match self.method:
            case "kmeans":
                return kmeans(train, n_clusters=k, seed=training.seed)
            case "pca_gmm":
                return pca_gmm(train, n_clusters=k, seed=training.seed)
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
    """Cells to run, and with which resources."""

    cells: tuple[Cell, ...]
    arm: str = "grid"  # of the table of trials
    margin: float | None = None  # an effect smaller than this does not matter; of the search that a grid confirms

    def __post_init__(self) -> None:
        super().__post_init__()
        ids = [cell.trial_id for cell in self.cells]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        self._check({"the grid has no cells": len(ids) > 0, f"cells named twice: {', '.join(twice)}": not twice})

    @property
    def trials(self) -> int:
        """How many cells."""
        return len(self.cells)

    @property
    def configs(self) -> list[Config]:
        """Of the variational methods' cells, whose trainings leave checkpoints."""
        return [cell.config for cell in self.cells if cell.method in VARIATIONAL]

    @property
    def features(self) -> list[Prepared]:
        """Of all cells, each once."""
        return list({cell.features.path: cell.features for cell in self.cells}.values())

    @property
    def epochs(self) -> int:
        """Of all cells together."""
        return sum(cell.epochs for cell in self.cells)

    @property
    def trained_epochs(self) -> int:
        """Of these, those that are trained if cells with one start all train it once."""
        starts = {cell.config.start_hash(): cell.config.training.start_epochs for cell in self.cells}
        return self.epochs - sum(epochs * max(0, self._starts[name] - 1) for name, epochs in starts.items())

    def design(self) -> dict[str, Any]:
        """What must not change when the grid is resumed: each cell's settings; resources may."""
        margin = {} if self.margin is None else {"margin": self.margin}
        return {**margin, **{cell.trial_id: cell.config.hash() for cell in self.cells}}

    def identify(self, point: Mapping[str, Any], trial_id: str) -> dict[str, Any]:
        """The columns of a cell's row that do not depend on how it went; Ray's `trial_id` is not used."""
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
        """A cell in a few words."""
        cell: Cell = self.cells[point["number"]]
        return cell.trial_id

    @cached_property
    def _starts(self) -> Counter[str]:
        """How many cells have each start."""
        return Counter(config.start_hash() for config in self.configs)

    def shares_start(self, point: Mapping[str, Any]) -> bool:
        """Cells do that differ in what the start does not read, such as the temperature."""
        return self._starts[self.cells[point["number"]].config.start_hash()] > 1

    def objective(self, report: Mapping[str, Any]) -> float | None:
        """The first objective's value; None where the grid has none, or the method no such score."""
        name = f"val/objective_{self.objectives[0]}" if self.objectives else ""
        return float(report[name]) if name in report else None


def test_scores(run: TrainingRun) -> Report:
    """What a finished training adds to its last report: the test split, read once; a diverged one has none."""
    if run.last_report["status"] != "complete":
        return {}
    return {f"test/{name}": value for name, value in run.evaluate("test").items()} | test_facts(run.features)


def test_facts(features: FeatureSet) -> dict[str, float]:
    """How many clips a score is of, and where there are labels how many: with another K accuracy means nothing."""
    facts = {"test/clips": float(len(features.splits["test"]))}
    if "label" in features.clips:
        facts["test/n_classes"] = float(features.clips["label"].nunique())
    return facts


def cell_config(config: Config, *, method: str, epochs: int, n_clusters: int, seed: int) -> Config:
    """The settings of a cell from those of its corpus's preset.

    Raises:
        ConfigError: an unknown method or a bad value.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    own = {"uvac": UVAC, PAPER_METHOD: PAPER_PROTOCOL}.get(method, {})
    return config.with_settings({**own, "epochs": epochs, "n_clusters": n_clusters, "seed": seed})
