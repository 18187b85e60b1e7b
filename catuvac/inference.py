"""A trained model for new recordings: from samples to a cluster, without features of a corpus and without an optimiser.

    model = load(Path("runs/fsdd"))
    prediction = model.predict([samples])

Shape legend: n clips, T frames, F bands, K clusters, d latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catuvac import artifacts, results, trained
from catuvac.config import Config
from catuvac.data import features
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.evaluation.metrics import DECIDED
from catuvac.models.cat_uvac import CatUVAC
from catuvac.models.uvac import UVAC
from catuvac.training import checkpoint, run_dir
from catuvac.training.run import EVAL_BATCH, MODELS, Report, use_bf16

NAMES = "names.json"  # beside a model's weights: what somebody calls its clusters


@dataclass(frozen=True)
class Prediction:
    """What a model says of n clips.

    Attributes:
        probabilities: q(y | x), `[n, K]`.
        z: posterior means, `[n, d]`.
        error: root mean square difference `[n]` between a clip's features in [0, 1] and their reconstruction, over the
            cells that count: how unlike the training data a clip is.
    """

    probabilities: NDArray[np.float32]
    z: NDArray[np.float32]
    error: NDArray[np.float32]

    @property
    def clusters(self) -> NDArray[np.int64]:
        """The most probable cluster of each clip, `[n]`, 0 to K - 1."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def entropy(self) -> NDArray[np.float32]:
        """Of q(y | x), `[n]`, in nats."""
        p = np.clip(self.probabilities, np.finfo(np.float32).tiny, 1)
        return np.asarray(-(p * np.log(p)).sum(axis=1), dtype=np.float32)


@dataclass(frozen=True)
class FittedModel:
    """Weights, the front end that they were trained with, and the names of their clusters.

    Attributes:
        folder: where the weights lie, and the names beside them.
        names: of the K clusters; "" for one without a name.
        report: of the last evaluation in training, on the validation split; what has a name of `val/` is a score.
    """

    config: Config
    model: CatUVAC | UVAC
    normaliser: features.Normaliser
    folder: Path
    names: tuple[str, ...]
    report: Report

    @property
    def sample_rate(self) -> int:
        """Of the samples that it takes, in Hz."""
        return self.config.features.sample_rate

    @property
    def window(self) -> int:
        """The samples of a whole clip."""
        return features.clip_samples(self.config.features)

    @property
    def undecided_above(self) -> float:
        """The entropy in nats above which a clip counts as undecided: ½ log K, as for a whole training."""
        return DECIDED * math.log(self.config.model.n_clusters)

    def predict(self, clips: Sequence[Tensor], durations: Sequence[float] | None = None) -> Prediction:
        """Assigns clips, with the features that the training had, to the bit.

        Args:
            clips: samples `[s]` each, finite, at `config.features.sample_rate` Hz.
            durations: the true length of each in s; None where every sample is the clip's own.
        """
        lengths = durations or [math.nan] * len(clips)
        batches = [slice(start, start + EVAL_BATCH) for start in range(0, len(clips), EVAL_BATCH)]
        parts = [self._predict(clips[batch], lengths[batch]) for batch in batches]
        k, d = self.config.model.n_clusters, self.config.model.latent_dim
        empty = np.zeros(0, np.float32)
        return Prediction(
            np.concatenate([np.zeros((0, k), np.float32), *(part.probabilities for part in parts)]),
            np.concatenate([np.zeros((0, d), np.float32), *(part.z for part in parts)]),
            np.concatenate([empty, *(part.error for part in parts)]),
        )

    def logits(self, clips: Sequence[Tensor], durations: Sequence[float] | None = None) -> NDArray[np.float32]:
        """Those of q(y | x), `[n, K]`, of at most a few hundred clips, without the rest of what `predict` computes."""
        x, _ = self._features(clips, durations or [math.nan] * len(clips))
        with torch.no_grad(), self._autocast():
            logits: NDArray[np.float32] = self.model.cluster_logits(x).numpy()
        return logits

    def _features(self, clips: Sequence[Tensor], durations: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Features `[n, 1, T, F]` in [0, 1], and the mask of active frames `[n, T]`."""
        raw, mask = features.extract_batch(clips, durations=durations, config=self.config.features)
        return torch.from_numpy(self.normaliser.apply(raw.numpy(), mask.numpy()))[:, None], mask

    def _autocast(self) -> torch.autocast:
        """bfloat16 where the settings and this processor have it."""
        bands = features.frames(self.config.features)[1]
        bf16 = use_bf16(self.config.training.precision, torch.device("cpu"), bands)
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)

    def _predict(self, clips: Sequence[Tensor], durations: Sequence[float]) -> Prediction:
        x, mask = self._features(clips, durations)
        counted = mask[:, None, :, None] & (torch.arange(x.shape[3]) < features.valid_bands(self.config.features))
        cells = counted.expand_as(x).float()
        with torch.no_grad(), self._autocast():
            inference = self.model.infer(x)
            picture = torch.sigmoid(self.model.generate(inference.y, inference.z).float())
        squares = (cells * (x - picture).square()).sum(dim=(1, 2, 3))
        error = (squares / cells.sum(dim=(1, 2, 3)).clamp(min=1)).sqrt()
        return Prediction(torch.softmax(inference.logits, dim=-1).numpy(), inference.mean.numpy(), error.numpy())


def load(spec: Path | str) -> FittedModel:
    """Opens a trained model.

    Args:
        spec: the folder of `catuvac train`, that of a study (its best trial by the objective), or of one of its
            trials: "results/NAME:7".

    Raises:
        CatuvacError: no such folder, no weights in it, or weights of an earlier version, which lack the normaliser.
    """
    folder, _, number = str(spec).rpartition(":")
    if folder and number.isdigit() and not Path(spec).exists():
        return _trial(Path(folder), int(number))
    folder_ = Path(spec)
    if (folder_ / "config.yaml").is_file():
        return _run(folder_)
    if (folder_ / results.TRIALS).is_file():
        best = trained.ranked(folder_)
        if not best:
            raise CatuvacError(
                f"no complete trial of {folder_} has left a checkpoint; run it with --keep-top 1 or more"
            )
        return _trial(folder_, best[0])
    raise CatuvacError(f"{spec} holds no model; give the folder of `catuvac train`, a study's, or STUDY:NUMBER")


def training_features(model: FittedModel) -> FeatureSet | None:
    """The features that a model was trained on, with their splits; None where this machine's cache lacks them."""
    try:
        if (model.folder / "run.json").is_file():
            return run_dir.features(model.folder)
        return trained.study_features(model.folder.parents[1], model.config)
    except CatuvacError:
        return None


def rename(model: FittedModel, names: dict[int, str]) -> FittedModel:
    """Names clusters, beside the weights; "" takes a name away.

    Raises:
        CatuvacError: no such cluster, or a name that cannot be a folder's, into which recordings are sorted.
    """
    k = len(model.names)
    for cluster, name in names.items():
        if name in (".", ".."):
            raise CatuvacError(f"{name!r} cannot be the name of a cluster: recordings are sorted into folders by it")
        if not 0 <= cluster < k:
            raise CatuvacError(f"no cluster {cluster}; {model.folder} has clusters 0 to {k - 1}")
    changed = tuple(names.get(cluster, name) for cluster, name in enumerate(model.names))
    artifacts.write_json(model.folder / NAMES, {str(cluster): name for cluster, name in enumerate(changed)})
    return replace(model, names=changed)


def _run(folder: Path) -> FittedModel:
    config = run_dir.config(folder)
    run_dir.weights(folder)  # checkpoint.pt alone would be a training that has not ended
    return _fitted(config, checkpoint.load(folder / "checkpoint.pt"), folder, of=str(folder))


def _trial(study: Path, number: int) -> FittedModel:
    config, path = trained.stored_trial(study, number)
    stored = checkpoint.load(path, advice=trained.NO_TRIAL).get("run")
    return _fitted(config, stored if isinstance(stored, dict) else {}, path.parent, of=f"trial {number} of {study}")


def _fitted(config: Config, state: dict[str, object], folder: Path, *, of: str) -> FittedModel:
    normaliser, weights, report = state.get("normaliser"), state.get("model"), state.get("last_report")
    if not isinstance(normaliser, dict) or not isinstance(weights, dict) or not isinstance(report, dict):
        raise CatuvacError(f"{of} is of an earlier version, which did not keep its normaliser; train it again")
    frames, bands = features.frames(config.features)
    # Sigma 0 stands for a value of the training features, which an assignment does not read.
    settings = replace(config.model, sigma=config.model.sigma or 1.0)
    model = MODELS[config.model.method](settings, n_frames=frames, n_bands=bands)
    checkpoint.fill(model, weights, f"the weights of {of} do not fit its settings; train it again")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.eval()
    names = [""] * config.model.n_clusters
    if (folder / NAMES).is_file():
        stored = artifacts.read_json(folder / NAMES, {}, advice="delete it, and name the clusters again")
        for cluster in range(len(names)):
            if isinstance(name := stored.get(str(cluster), ""), str):
                names[cluster] = name
    return FittedModel(config, model, features.Normaliser.from_dict(normaliser), folder, tuple(names), report)
