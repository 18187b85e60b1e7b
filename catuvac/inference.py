"""Inference on new recordings: from samples to clusters, without a corpus's features and without an optimiser.

    model = load(Path("runs/fsdd"))
    prediction = model.predict([samples])

Shape legend: n clips, T frames, F bands, K clusters, d latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor

from catuvac import artifacts, results, trained
from catuvac.config import Config
from catuvac.data import audio, features
from catuvac.data.store import ByClip, FeatureSet
from catuvac.errors import CatuvacError
from catuvac.evaluation import metrics
from catuvac.evaluation.metrics import DECIDED
from catuvac.io import locked
from catuvac.models.variational import VariationalModel
from catuvac.training import checkpoint, run_dir
from catuvac.training.run import EVAL_BATCH, MODELS, Report, TrainingRun, mean_probabilities, two_views, use_bf16

NAMES = "names.json"  # next to a model's weights: the names that users gave its clusters


@dataclass(frozen=True)
class Prediction:
    """A model's output for n clips.

    Attributes:
        probabilities: q(y | x), `[n, K]`.
        z: posterior means, `[n, d]`.
        error: root mean square difference `[n]` between a clip's features in [0, 1] and their reconstruction, over the
            unmasked cells: how unlike the training data a clip is.
        reasons: n reasons why a clip's features cannot be used, so that all else about it is meaningless; "" where they
            can. Empty for features that were given.
    """

    probabilities: NDArray[np.float32]
    z: NDArray[np.float32]
    error: NDArray[np.float32]
    reasons: tuple[str, ...] = ()

    @property
    def clusters(self) -> NDArray[np.int64]:
        """The most probable cluster of each clip, `[n]`, 0 to K - 1."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def entropy(self) -> NDArray[np.float32]:
        """The entropy of q(y | x), `[n]`, in nats."""
        return np.asarray(entr(self.probabilities).sum(axis=1), dtype=np.float32)


@dataclass(frozen=True)
class FittedModel:
    """The weights, the front end that they were trained with, and the names of the clusters.

    Attributes:
        folder: contains the weights and the cluster names; None for a model in memory.
        names: of the K clusters; "" for a cluster without a name.
        report: of the last evaluation in training, on the validation split; names that start with `val/` are scores.
    """

    config: Config
    model: VariationalModel
    normaliser: features.Normaliser
    folder: Path | None
    names: tuple[str, ...]
    report: Report

    @property
    def sample_rate(self) -> int:
        """The sample rate of its input, in Hz."""
        return self.config.features.sample_rate

    @property
    def window(self) -> int:
        """The number of samples that the networks see at a time: a whole clip, or a window of its context."""
        return features.clip_samples(self.config.features)

    @property
    def undecided_above(self) -> float:
        """The entropy in nats above which a clip counts as undecided: ½ log K, as in training."""
        return DECIDED * math.log(self.config.model.n_clusters)

    def predict(self, clips: Sequence[Tensor]) -> Prediction:
        """Assigns clips to clusters, with features that are bit-identical to those of the training.

        A model with a context averages the logits of a clip's windows. Training resamples each window separately, so
        that features at the edges of windows differ slightly if `clips` were resampled as a whole.

        Args:
            clips: samples `[s]` of each clip, finite and without padding, at `config.features.sample_rate` Hz.
        """
        if not self.config.features.context:
            return self._predict_whole(clips)
        windows: list[Tensor] = []
        of: list[int] = []
        for number, samples in enumerate(clips):
            count = audio.window_count(len(samples), seconds=self.window, hop=self.window)
            windows += [samples[i * self.window : (i + 1) * self.window] for i in range(count)]
            of += [number] * count
        parts = self._predict_whole(windows)
        by_clip = ByClip(np.arange(len(clips)), np.array(of, dtype=np.int64))
        reasons = [""] * len(clips)
        for number, reason in zip(of, parts.reasons, strict=True):
            reasons[number] = reasons[number] or reason
        return Prediction(
            mean_probabilities(by_clip, parts.probabilities),
            by_clip.means(parts.z),
            np.sqrt(by_clip.means(parts.error**2)),
            tuple(reasons),
        )

    def _predict_whole(self, clips: Sequence[Tensor]) -> Prediction:
        """Assigns clips, or windows, that the networks see as a whole."""
        reasons: list[str] = []

        def extracted() -> Iterator[tuple[Tensor, Tensor]]:
            for part in _batches(len(clips)):
                lengths = [math.nan] * len(clips[part])
                x, mask, found = features.extract_usable(clips[part], durations=lengths, config=self.config.features)
                reasons.extend(found)
                yield x, mask

        return replace(self._predict(extracted()), reasons=tuple(reasons))

    def predict_features(self, x: features.Array, mask: features.Mask) -> Prediction:
        """Assigns clips by their unnormalised features `[n, T, F]`, with the activity mask `[n, T]`."""
        return self._predict(_tensors(x, mask))

    def invariant_information(self, x: features.Array, mask: features.Mask) -> float:
        """Returns the label-free score of a search, in [0, 1], for n > 0 clips; arguments as for `predict_features`."""
        batches = (self._input(*batch) for batch in _tensors(x, mask))
        views = two_views(batches, self._logits, self.config.training, device=torch.device("cpu"))
        return metrics.invariant_information(*views)

    def _predict(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Prediction:
        parts = [self._predict_batch(x, mask) for x, mask in batches]
        k, d = self.config.model.n_clusters, self.config.model.latent_dim
        empty = np.zeros(0, np.float32)
        return Prediction(
            np.concatenate([np.zeros((0, k), np.float32), *(part.probabilities for part in parts)]),
            np.concatenate([np.zeros((0, d), np.float32), *(part.z for part in parts)]),
            np.concatenate([empty, *(part.error for part in parts)]),
        )

    def logits(self, clips: Sequence[Tensor], durations: Sequence[float] | None = None) -> NDArray[np.float32]:
        """Computes only the logits of q(y | x), `[n, K]`, for up to a few hundred clips.

        Args:
            clips: as for `predict`, but possibly padded.
            durations: the true length of each clip in s; None if no clip contains padding.

        Raises:
            CatuvacError: the features of a clip cannot be used.
        """
        lengths = durations or [math.nan] * len(clips)
        raw, mask, reasons = features.extract_usable(clips, durations=lengths, config=self.config.features)
        for reason in filter(None, reasons):
            raise CatuvacError(reason)
        x, _ = self._input(raw, mask)
        with torch.no_grad():
            logits: NDArray[np.float32] = self._logits(x).numpy()
        return logits

    def _input(self, raw: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns normalised features `[n, 1, T, F]` and their mask, 1 for each cell that counts."""
        x = torch.from_numpy(self.normaliser.apply(raw.numpy(), mask.numpy()))[:, None]
        bands = torch.arange(x.shape[3]) < self.config.features.n_bands
        return x, (mask[:, None, :, None] & bands).expand_as(x).float()

    def _autocast(self, x: Tensor) -> torch.autocast:
        """Enables bfloat16 if the settings allow it and this processor supports it."""
        bf16 = use_bf16(self.config.training.precision, torch.device("cpu"), x.shape[3])
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)

    def _logits(self, x: Tensor) -> Tensor:
        with self._autocast(x):
            return self.model.cluster_logits(x)

    def _predict_batch(self, raw: Tensor, mask: Tensor) -> Prediction:
        x, cells = self._input(raw, mask)
        with torch.no_grad(), self._autocast(x):
            inference = self.model.infer(x)
            picture = torch.sigmoid(self.model.generate(inference.y, inference.z).float())
        squares = (cells * (x - picture).square()).sum(dim=(1, 2, 3))
        error = (squares / cells.sum(dim=(1, 2, 3)).clamp(min=1)).sqrt()
        return Prediction(torch.softmax(inference.logits, dim=-1).numpy(), inference.mean.numpy(), error.numpy())


def load(spec: Path | str) -> FittedModel:
    """Opens a trained model.

    Args:
        spec: the folder of `catuvac train`, the folder of a study (opens its best trial by the objective), or one of
            its trials, such as "results/NAME:7".

    Raises:
        CatuvacError: the folder does not exist, or its weights are absent or from a version that lacks the normaliser.
    """
    folder, _, number = str(spec).rpartition(":")
    if folder and number.isdecimal() and not Path(spec).exists():
        return _trial(Path(folder), int(number))
    folder_ = Path(spec)
    if (folder_ / "config.yaml").is_file():
        return _run(folder_)
    if (folder_ / results.TRIALS).is_file():
        best = trained.ranked(folder_)
        if not best:
            advice = trained.elsewhere(folder_) or "run the study with --keep-top 1 or more"
            raise CatuvacError(f"no complete trial of {folder_} has a checkpoint; {advice}")
        return _trial(folder_, best[0])
    raise CatuvacError(f"{spec} contains no model; give the folder of `catuvac train` or of a study, or STUDY:NUMBER")


def training_features(model: FittedModel) -> FeatureSet | None:
    """Returns the features that a model was trained on, with their splits; None if this machine's cache lacks them."""
    if model.folder is None:
        return None
    try:
        if (model.folder / "run.json").is_file():
            return run_dir.features(model.folder)
        return trained.study_features(model.folder.parents[1], model.config)
    except CatuvacError:
        return None


def of_run(run: TrainingRun) -> FittedModel:
    """Returns the model of a training run in memory, on the CPU."""
    return _fitted(run.config, run.state(), None, of="this training")


def save(model: FittedModel, folder: Path) -> FittedModel:
    """Writes a model so that `load` and `catuvac assign` can open it, and returns it with its new folder.

    Raises:
        CatuvacError: the folder contains a run already, or cannot be written to.
    """
    run_dir.check(folder, model.config, resume=False)
    weights = model.model.state_dict()
    state = {"model": weights, "normaliser": model.normaliser.to_dict(), "last_report": model.report}
    try:
        checkpoint.save(folder / run_dir.WEIGHTS, weights)
        checkpoint.save(folder / "checkpoint.pt", state)
        artifacts.write_json(folder / "run.json", {"features": "", "revision": run_dir.revision()})
        artifacts.write_yaml(folder / "config.yaml", model.config.to_yaml())  # last, because it marks a complete run
    except OSError as error:
        raise CatuvacError(f"cannot write to {folder}: {error.strerror}; give another folder") from error
    model = replace(model, folder=folder)
    return rename(model, dict(enumerate(model.names))) if any(model.names) else model


def rename(model: FittedModel, names: dict[int, str]) -> FittedModel:
    """Names clusters and stores the names next to the weights; "" removes a name.

    Raises:
        CatuvacError: the model has no folder, the cluster does not exist, or the name cannot be that of a folder, as
            recordings are sorted into folders by cluster name.
    """
    if model.folder is None:
        raise CatuvacError("a model in memory cannot store names: save it first")
    k = len(model.names)
    for cluster, name in names.items():
        if name in (".", ".."):
            raise CatuvacError(f"{name!r} cannot be the name of a cluster: recordings are sorted into folders by it")
        if not 0 <= cluster < k:
            raise CatuvacError(f"no cluster {cluster}; {model.folder} has clusters 0 to {k - 1}")
    with locked(model.folder / f".{NAMES}.lock", waiting="names its clusters", remove=True):
        # Another process may have named other clusters since the model was opened.
        changed = tuple(names.get(cluster, name) for cluster, name in enumerate(_names(model.folder, k)))
        artifacts.write_json(model.folder / NAMES, {str(cluster): name for cluster, name in enumerate(changed)})
    return replace(model, names=changed)


def _run(folder: Path) -> FittedModel:
    config = run_dir.config(folder)
    run_dir.weights(folder)  # a folder with checkpoint.pt alone is an unfinished training run
    return _fitted(config, checkpoint.load(folder / "checkpoint.pt"), folder, of=str(folder))


def _trial(study: Path, number: int) -> FittedModel:
    config, path, state = trained.stored_trial(study, number)
    return _fitted(config, state, path.parent, of=f"trial {number} of {study}")


def _fitted(config: Config, state: dict[str, object], folder: Path | None, *, of: str) -> FittedModel:
    normaliser, weights, report = state.get("normaliser"), state.get("model"), state.get("last_report")
    if not isinstance(normaliser, dict) or not isinstance(weights, dict) or not isinstance(report, dict):
        raise CatuvacError(f"{of} is from an earlier version, which did not store the normaliser; train it again")
    if report.get("status") == "diverged":
        raise CatuvacError(f"{of} diverged, so that it has no clusters; train it again with a lower lr_start")
    frames, bands = features.frames(config.features)
    # Sigma 0 stands for a value computed from the training features, which inference does not need.
    settings = replace(config.model, sigma=config.model.sigma or 1.0)
    model = MODELS[config.model.method](settings, n_frames=frames, n_bands=bands)
    checkpoint.fill(model, weights, f"the weights of {of} do not fit its settings; train it again")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.eval()
    names = _names(folder, config.model.n_clusters)
    return FittedModel(config, model, features.Normaliser.from_dict(normaliser), folder, names, report)


def _names(folder: Path | None, k: int) -> tuple[str, ...]:
    if folder is None or not (folder / NAMES).is_file():
        return ("",) * k
    stored = artifacts.read_json(folder / NAMES, {}, advice="delete it, and name the clusters again")
    names = (stored.get(str(cluster), "") for cluster in range(k))
    return tuple(name if isinstance(name, str) else "" for name in names)


def _batches(count: int) -> Iterable[slice]:
    return (slice(start, start + EVAL_BATCH) for start in range(0, count, EVAL_BATCH))


def _tensors(x: features.Array, mask: features.Mask) -> Iterable[tuple[Tensor, Tensor]]:
    return ((torch.from_numpy(x[part]), torch.from_numpy(mask[part])) for part in _batches(len(x)))
