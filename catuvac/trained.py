"""A trained model opened for a look: what it says of every clip of a split, what its clusters sound and look like."""

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

NO_TRIAL = "delete the checkpoint, and the best of the others is shown"


@dataclass(frozen=True)
class Trained:
    """A model, its features, and one split. Nothing is trained, and labels are only ever shown."""

    name: str  # such as "trial 7 of fsdd"
    run: TrainingRun
    split: str

    @property
    def config(self) -> Config:
        """What it was trained with."""
        return self.run.config

    @property
    def features(self) -> FeatureSet:
        """Of the whole corpus."""
        return self.run.features

    @property
    def rows(self) -> NDArray[np.int64]:
        """`[n]` rows of the feature set: the split's clips, in whose order everything else is."""
        return self.features.splits[self.split]

    @property
    def clips(self) -> pd.DataFrame:
        """The n rows of the corpus's table: path, label where there is one, nuisance columns."""
        return self.features.clips.iloc[self.rows].reset_index(drop=True)

    @property
    def x(self) -> NDArray[np.float32]:
        """Features `[n, T, F]` in [0, 1], without the bands that pad F."""
        return self.features.x[self.rows][..., : self.features.n_bands]

    @cached_property
    def _outputs(self) -> dict[str, NDArray[np.float32]]:
        return self.run.infer(self.rows)

    @property
    def logits(self) -> NDArray[np.float32]:
        """`[n, K]`; their argmax is the cluster."""
        return self._outputs["logits"]

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """q(y | x), `[n, K]`."""
        return self._outputs["probabilities"]

    @property
    def clusters(self) -> NDArray[np.int64]:
        """`[n]`, 0 to K - 1."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def z(self) -> NDArray[np.float32]:
        """Posterior means `[n, d]`."""
        return self._outputs["mean"]

    @cached_property
    def prototypes(self) -> NDArray[np.float32]:
        """`[K, T, F]` in [0, 1]: what the decoder draws for each cluster at the prior's mean of z."""
        with torch.no_grad():
            drawn = self.run.model.eval().prototypes
            picture: NDArray[np.float32] = torch.sigmoid(drawn.float())[:, 0, :, : self.features.n_bands].numpy()
        return picture

    def views(self, clips: NDArray[np.int64], count: int) -> NDArray[np.float32]:
        """Clips of the split, each with `count` views drawn as in training: `[n, 1 + count, T, F]` in [0, 1]."""
        run = self.run
        x, cells = run.data.batch(torch.from_numpy(self.rows[clips]))
        generator = torch.Generator().manual_seed(VIEW_SEED)
        drawn = torch.cat([x, *(run.step.view(x, cells, generator) for _ in range(count))], dim=1)
        pictures: NDArray[np.float32] = drawn[..., : self.features.n_bands].numpy()
        return pictures

    def audio(self, clip: int) -> tuple[NDArray[np.float32], int] | None:
        """Samples `[s]` and rate (Hz) of the split's clip number `clip`; None where its recording is gone."""
        corpus, rate = self.config.corpus, self.config.features.sample_rate
        row = self.clips.iloc[clip]
        # A file that is a clip is played whole, with what pads it.
        part = {"start": row["start"], "seconds": row["duration"]} if "start" in row else {}
        try:
            samples = CORPORA[corpus.corpus].read(corpus, str(row["path"]), rate, **part)
        except AudioError:
            return None
        return np.asarray(samples.numpy(), dtype=np.float32), rate


def open_run(folder: Path, *, split: str = "val") -> Trained:
    """Opens what `catuvac train --out` left.

    Raises:
        CatuvacError: no run, one without weights, or features that are gone from the cache.
    """
    config = run_dir.config(folder)
    features = run_dir.features(folder)
    if features is None:
        raise CatuvacError(f"the features of {folder} are gone from the cache: run `catuvac prepare` again")
    run = TrainingRun(config, features)
    run_dir.load_weights(folder, run)
    return Trained(folder.name, run, split)


def open_trial(folder: Path, number: int, *, split: str = "val") -> Trained:
    """Opens a study's trial at its last epoch, from the checkpoint that `--keep-top` left.

    Raises:
        CatuvacError: no such trial, no checkpoint of it, or features that are gone from the cache.
    """
    config, path, state = stored_trial(folder, number)
    run = TrainingRun(config, study_features(folder, config))
    checkpoint.fill(run.model, state.get("model"), f"{path} does not fit trial {number}; {NO_TRIAL}")
    return Trained(f"trial {number} of {folder.name}", run, split)


def stored_trial(folder: Path, number: int) -> tuple[Config, Path, dict[str, Any]]:
    """A trial's settings, the checkpoint of its last epoch, and the state of its training in there.

    Raises:
        CatuvacError: no such trial, no checkpoint of it, or a damaged one.
    """
    rows = [row for row in results.records(results.read_trials(folder)) if row["number"] == number]
    if not rows:
        raise CatuvacError(f"{folder} has no trial {number}")
    path = folder / CHECKPOINTS / f"{number:04}" / "last.pt"
    if not path.exists():
        raise CatuvacError(f"no checkpoint of trial {number} in {path.parent}: --keep-top keeps the best trials' alone")
    state = checkpoint.load(path, advice=NO_TRIAL).get("run")
    return Config().with_settings(settings_of(rows[0])), path, state if isinstance(state, dict) else {}


def kept(folder: Path) -> list[int]:
    """The numbers of the trials that `open_trial` finds a checkpoint of."""
    numbers = [path.parent.name for path in (folder / CHECKPOINTS).glob("*/last.pt")]
    return sorted(int(number) for number in numbers if number.isascii() and number.isdigit())


def ranked(folder: Path) -> list[int]:
    """The complete trials that have left a checkpoint, the best by the study's objective first.

    No label has a part in it, and the paper's protocol, which is there to be compared with, has none either.
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
    """The features that the trials of a study with these settings were trained on.

    Raises:
        CatuvacError: it is not recorded where they are, or they are gone from the cache.
    """
    path = recorded_features(read_json(folder / DESIGN, {"features": str}), config.split.split_seed)
    features = store.reopen(path) if path else None
    if features is None:
        raise CatuvacError(f"the features of {folder} are gone from this machine's cache: run `catuvac prepare` again")
    return features
