"""A trained model for inspection: its output for every clip of a split, and its clusters as sound and image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from catuvac import results
from catuvac.artifacts import read_json
from catuvac.config import PAPER_METHOD, Config
from catuvac.data import store
from catuvac.data.audio import AudioError
from catuvac.data.corpora import CORPORA
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.experiments.base import CHECKPOINTS, DESIGN, recorded_features, settings_of
from catuvac.training import checkpoint, run_dir
from catuvac.training.run import VIEW_SEED, TrainingRun

NO_TRIAL = "delete the checkpoint to show the best of the others"


@dataclass(frozen=True)
class Trained:
    """A model, its features, and one split. Nothing is trained, and labels are only displayed."""

    name: str  # such as "trial 7 of fsdd"
    run: TrainingRun
    split: str

    @property
    def config(self) -> Config:
        """The configuration of the training."""
        return self.run.config

    @property
    def features(self) -> FeatureSet:
        """The features of the whole corpus."""
        return self.run.features

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows `[n]` of the split's clips in the feature set; everything else is in this order."""
        return self.features.splits[self.split]

    @property
    def clips(self) -> pd.DataFrame:
        """The n rows of the corpus's table: path, label if there is one, nuisance columns."""
        return self.features.clips.iloc[self.rows].reset_index(drop=True)

    @property
    def x(self) -> NDArray[np.float32]:
        """The features `[n, T, F]` in [0, 1], without padding bands."""
        return self.features.x[self.rows][..., : self.features.n_bands]

    @cached_property
    def _outputs(self) -> dict[str, NDArray[np.float32]]:
        return self.run.infer(self.rows)

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits `[n, K]`; their argmax is the cluster."""
        return self._outputs["logits"]

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """The probabilities q(y | x), `[n, K]`."""
        return self._outputs["probabilities"]

    @property
    def clusters(self) -> NDArray[np.int64]:
        """The most probable clusters `[n]`, 0 to K - 1."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def z(self) -> NDArray[np.float32]:
        """The posterior means `[n, d]`."""
        return self._outputs["mean"]

    @cached_property
    def prototypes(self) -> NDArray[np.float32]:
        """The prototypes `[K, T, F]` in [0, 1]: the decoder's output for each cluster at the prior mean of z."""
        with torch.no_grad():
            drawn = self.run.model.eval().prototypes
            picture: NDArray[np.float32] = torch.sigmoid(drawn.float())[:, 0, :, : self.features.n_bands].numpy()
        return picture

    def views(self, clips: NDArray[np.int64], count: int) -> NDArray[np.float32]:
        """Returns clips of the split with `count` views each, as in training: `[n, 1 + count, T, F]` in [0, 1]."""
        run = self.run
        x, cells = run.data.batch(torch.from_numpy(self.rows[clips]))
        generator = torch.Generator().manual_seed(VIEW_SEED)
        drawn = torch.cat([x, *(run.step.view(x, cells, generator) for _ in range(count))], dim=1)
        pictures: NDArray[np.float32] = drawn[..., : self.features.n_bands].numpy()
        return pictures

    def audio(self, clip: int) -> tuple[NDArray[np.float32], int] | None:
        """Returns samples `[s]` and rate (Hz) of the split's clip number `clip`; None if the recording is gone."""
        corpus, rate = self.config.corpus, self.config.features.sample_rate
        row = self.clips.iloc[clip]
        # A file that is one clip is played completely, including its padding.
        part = {"start": row["start"], "seconds": row["duration"]} if "start" in row else {}
        try:
            samples = CORPORA[corpus.corpus].read(corpus, str(row["path"]), rate, **part)
        except AudioError:
            return None
        return np.asarray(samples.numpy(), dtype=np.float32), rate


def open_run(folder: Path, *, split: str = "val") -> Trained:
    """Opens a folder of `catuvac train --out`.

    Raises:
        CatuvacError: there is no run, it has no weights, or its features are gone from the cache.
    """
    config = run_dir.config(folder)
    features = run_dir.features(folder)
    if features is None:
        raise CatuvacError(f"the features of {folder} are gone from the cache: run `catuvac prepare` again")
    run = TrainingRun(config, features)
    run_dir.load_weights(folder, run)
    return Trained(folder.name, run, split)


def open_trial(folder: Path, number: int, *, split: str = "val") -> Trained:
    """Opens a trial of a study at its last epoch, from a checkpoint that `--keep-top` has kept.

    Raises:
        CatuvacError: there is no such trial, it has no checkpoint, or its features are gone from the cache.
    """
    config, path, state = stored_trial(folder, number)
    run = TrainingRun(config, study_features(folder, config))
    checkpoint.fill(run.model, state.get("model"), f"{path} does not fit trial {number}; {NO_TRIAL}")
    return Trained(f"trial {number} of {folder.name}", run, split)


def stored_trial(folder: Path, number: int) -> tuple[Config, Path, dict[str, Any]]:
    """Returns a trial's settings, the path of its last checkpoint, and the training state in it.

    Raises:
        CatuvacError: there is no such trial, it has no checkpoint, or the checkpoint is damaged.
    """
    rows = [row for row in results.records(results.read_trials(folder)) if row["number"] == number]
    if not rows:
        raise CatuvacError(f"{folder} has no trial {number}")
    path = folder / CHECKPOINTS / f"{number:04}" / "last.pt"
    if not path.exists():
        why = elsewhere(folder) or "--keep-top keeps only the best trials'"
        raise CatuvacError(f"no checkpoint of trial {number} in {path.parent}: {why}")
    state = checkpoint.load(path, advice=NO_TRIAL).get("run")
    return Config().with_settings(settings_of(rows[0])), path, state if isinstance(state, dict) else {}


def elsewhere(folder: Path) -> str:
    """Describes how to fetch the checkpoints of a study in a bucket; "" for a study that is in its folder alone."""
    remote = read_json(folder / DESIGN, {}).get("remote") if (folder / DESIGN).exists() else None
    return f"they are in a bucket; copy {remote}/{CHECKPOINTS} to {folder / CHECKPOINTS}" if remote else ""


def kept(folder: Path) -> list[int]:
    """Returns the numbers of the trials with a checkpoint that `open_trial` can open."""
    numbers = [path.parent.name for path in (folder / CHECKPOINTS).glob("*/last.pt")]
    return sorted(int(number) for number in numbers if number.isascii() and number.isdigit())


def ranked(folder: Path) -> list[int]:
    """Returns the complete trials with a checkpoint, sorted by the study's objective, the best first.

    Labels are not used, and trials of the paper's protocol, which serve for comparison only, are excluded.
    """
    trials = results.read_trials(folder)
    complete = trials[
        (trials["status"] == "complete")
        & trials["objective"].notna()
        & (trials["method"] != PAPER_METHOD)
        & trials["number"].isin(kept(folder))
    ]
    return [int(number) for number in complete.sort_values("objective", ascending=False, kind="stable")["number"]]


def study_features(folder: Path, config: Config) -> FeatureSet:
    """Opens the features on which the study's trials with these settings were trained.

    Raises:
        CatuvacError: their location is not recorded, or they are gone from the cache.
    """
    path = recorded_features(read_json(folder / DESIGN, {"features": str}), config)
    features = store.reopen(path) if path else None
    if features is None:
        raise CatuvacError(f"the features of {folder} are gone from this machine's cache: run `catuvac prepare` again")
    return features
