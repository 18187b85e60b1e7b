"""Cat. UVAC with scikit-learn's API: `fit` and `predict` on recordings, audio or features, without a corpus.

Shape legend: n clips, T frames, F bands, K clusters, d latent dimensions.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from catuvac import inference
from catuvac.config import ClusterInit, Config, ConfigError, FeatureConfig, ViewSet, preset, unknown
from catuvac.data import audio, features, store
from catuvac.data.audio import AudioError
from catuvac.errors import CatuvacError
from catuvac.inference import Prediction
from catuvac.training import run_dir
from catuvac.training.run import EVAL_BATCH, Report, TrainingRun
from catuvac.training.schedules import Shape

Input = Literal["features", "audio", "paths"]
Clips = Sequence[str | Path] | Sequence[ArrayLike] | NDArray[Any]  # depending on `input`

_PRESET = preset("folder")  # for arbitrary recordings: its settings are the defaults
_FRONT_END, _MODEL, _TRAINING = _PRESET.features, _PRESET.model, _PRESET.training
_SECTIONS = ("features", "model", "training")  # of a configuration; an estimator has neither a corpus nor a split


class CatUVACClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Clusters recordings by a categorical variational autoencoder.

    `fit` trains on all clips. Labels are not used: `y` is accepted everywhere and ignored. On a CPU, results are
    bit-identical for the same `random_state` and number of threads.

    `input` determines what X is:

    - `"features"`: numbers `[n, T, F]`, T frames of F bands per clip, on any scale. `[n, F]` are spectra without a time
      axis, which are treated as clips with identical frames. `predict` needs the same T and F as `fit`.
    - `"audio"`: n arrays of samples, of equal or different lengths, at `sample_rate` Hz.
    - `"paths"`: n paths of recordings at any rate, which are read as by `catuvac prepare`.

    Args:
        n_clusters: K.
        input: what X is.
        sample_rate: Hz, of audio arrays; recordings are resampled to it; not used for features.
        clip_seconds: s; longer clips are cut, shorter ones padded; not used for features.
        latent_dim: d, the number of dimensions of z, which `transform` returns.
        beta: weight of the divergence of q(y | x) from equal clusters.
        epochs: passes over the clips. Small data sets need many.
        batch_size: clips per step; at least ten per cluster are best.
        tau_start, tau_end: Gumbel-Softmax temperature at the first and at the last step; it never rises.
        tau_schedule: shape of its decrease.
        cluster_init: target of q(y | x) in the warm-up.
        warmup_share: share of the epochs in the warm-up.
        n_init: number of starts; the one with most invariant information continues; above 1 only for "invariance".
        invariance: weight of the term by which two views of a clip share a cluster.
        views: what clusters must not depend on: the moment ("scene") or the speaker ("speech").
        view_strength: distance of a view from its clip, in [0, 1].
        settings: other settings of `catuvac.Config` by name, such as `{"n_bands": 40, "lr_start": 5e-4}`.
        random_state: seed of the weights, the order of the clips and the noise, like --seed of `catuvac train`.
        device: of the training; "auto" uses CUDA if available. Predictions are computed on the CPU.
        verbose: 1 prints one line per evaluation to standard error.

    Attributes:
        labels_: cluster `[n]` of each clip of `fit`, 0 to K - 1, as `predict` returns for the same clips.
        model_: the `catuvac.FittedModel`, for reconstruction errors and names.
        n_features_in_: size of the second axis of X, with input "features".
    """

    def __init__(
        self,
        n_clusters: int = _MODEL.n_clusters,
        *,
        input: Input = "features",
        sample_rate: int = _FRONT_END.sample_rate,
        clip_seconds: float = _FRONT_END.clip_seconds,
        latent_dim: int = _MODEL.latent_dim,
        beta: float = _MODEL.beta,
        epochs: int = _TRAINING.epochs,
        batch_size: int = _TRAINING.batch_size,
        tau_start: float = _TRAINING.tau_start,
        tau_end: float = _TRAINING.tau_end,
        tau_schedule: Shape = _TRAINING.tau_schedule,
        cluster_init: ClusterInit = _TRAINING.cluster_init,
        warmup_share: float = _TRAINING.warmup_share,
        n_init: int = _TRAINING.n_init,
        invariance: float = _TRAINING.invariance,
        views: ViewSet = _TRAINING.views,
        view_strength: float = _TRAINING.view_strength,
        settings: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.input = input
        self.sample_rate = sample_rate
        self.clip_seconds = clip_seconds
        self.latent_dim = latent_dim
        self.beta = beta
        self.epochs = epochs
        self.batch_size = batch_size
        self.tau_start = tau_start
        self.tau_end = tau_end
        self.tau_schedule = tau_schedule
        self.cluster_init = cluster_init
        self.warmup_share = warmup_share
        self.n_init = n_init
        self.invariance = invariance
        self.views = views
        self.view_strength = view_strength
        self.settings = settings
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    @classmethod
    def from_preset(cls, name: str, **parameters: Any) -> Self:
        """Creates an estimator with the features, model and training of a preset, such as "fsdd" for spoken digits.

        Args:
            name: as for `catuvac train --preset`.
            parameters: of the estimator; they override those of the preset.

        Raises:
            ConfigError: an unknown preset.
        """
        parameter_names, other_settings = cls._get_param_names(), {}
        for setting, value in _settings(preset(name)).items():
            if setting in parameter_names:
                parameters.setdefault(setting, value)
            elif value != _settings(_PRESET)[setting]:
                other_settings[setting] = value
        return cls(**{**parameters, "settings": {**other_settings, **(parameters.get("settings") or {})}})

    def fit(self, X: Clips, y: object = None) -> Self:
        """Trains on all clips of X.

        Args:
            X: n clips, of the kind that `input` names.
            y: ignored.

        Raises:
            ValueError: the features are not finite or have a wrong shape, or there are fewer clips than clusters.
            CatuvacError: a parameter is out of range, a recording or audio array is unusable, or the training diverged.
        """
        del y
        if self.input == "features":
            x = self._checked(X, reset=True)
            raw, mask = _padded(x)
            frames, bands = x.shape[1:]
            shape = {"time_fit": "stretch", "stretch_frames": frames, "n_bands": bands}
            config = self._config().with_settings({"kind": "array", "decibels": True, **shape})
        else:
            config = self._config()
            raw, mask = _extracted(X, config.features, paths=self.input == "paths")
        if len(raw) < config.model.n_clusters:
            raise ValueError(f"n_samples={len(raw)} must not be below n_clusters={config.model.n_clusters}")
        run = TrainingRun(
            config, store.from_arrays(raw, mask, config.features), device=run_dir.pick_device(self.device)
        )
        report: Report = {}
        for report in run:
            if self.verbose:
                summary = run_dir.summary(report)
                print(f"epoch {report['epoch']} of {run.config.training.epochs}: {summary}", file=sys.stderr)
        if report["status"] == "diverged":
            raise CatuvacError(f"the training diverged in epoch {run.epoch}: lower lr_start in settings")
        self.model_ = inference.of_run(run)
        self.labels_ = self.model_.predict_features(raw, mask).clusters
        return self

    def predict(self, X: Clips) -> NDArray[np.int64]:
        """Returns the most probable cluster of each clip, `[n]`; arguments and errors as for `fit`."""
        return self._prediction(X).clusters

    def predict_proba(self, X: Clips) -> NDArray[np.float32]:
        """Returns q(y | x), `[n, K]`, with rows that sum to 1; arguments and errors as for `fit`."""
        return self._prediction(X).probabilities

    def transform(self, X: Clips) -> NDArray[np.float32]:
        """Returns posterior means of z, `[n, d]`, the variation within clusters; arguments and errors as for `fit`."""
        return self._prediction(X).z

    def score(self, X: Clips, y: object = None) -> float:
        """Returns the invariant information of the clusters, in [0, 1]: the label-free objective of studies.

        It is the mutual information between the clusters of two views of each clip, divided by log K. It is 0 for
        collapsed or undecided clusters. The views are the same for all models with the same `views` and
        `view_strength`, so the scores of a search over other parameters are comparable.
        """
        del y
        check_is_fitted(self)
        return self.model_.invariant_information(*self._raw(X))

    def save(self, folder: str | Path) -> None:
        """Writes the model so that `catuvac.load` and `catuvac assign` can open it.

        Raises:
            CatuvacError: the folder contains a run already, or cannot be written to.
        """
        check_is_fitted(self)
        inference.save(self.model_, Path(folder))

    def _config(self) -> Config:
        """Returns the configuration that the parameters describe; raises `ConfigError` for an invalid one."""
        parameters, other_settings = self.get_params(deep=False), dict(self.settings or {})
        kinds: tuple[str, ...] = get_args(Input)
        if self.input not in kinds:
            raise ConfigError(f"input must be one of {', '.join(kinds)}; got {self.input!r}")
        known = [name for name in _settings(_PRESET) if name != "seed" and name not in parameters]
        for name in other_settings:
            if name not in known:
                parameter = "random_state" if name == "seed" else name
                own = f"{parameter} is a parameter of its own"
                raise ConfigError(f"settings: {own if parameter in parameters else unknown('setting', name, known)}")
        if other_settings.get("context"):
            raise ConfigError("settings: context cuts the clips of a corpus; cut X into windows, and leave it out")
        settings = {name: value for name, value in parameters.items() if name in _settings(_PRESET)}
        return _PRESET.with_settings({**settings, **other_settings, "seed": self._seed()})

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _prediction(self, X: Clips) -> Prediction:
        check_is_fitted(self)
        return self.model_.predict_features(*self._raw(X))

    def _raw(self, X: Clips) -> tuple[features.Array, features.Mask]:
        """Returns unnormalised features `[n, T, F]` of new clips and their activity mask `[n, T]`."""
        config = self.model_.config.features
        if self.input != "features":
            return _extracted(X, config, paths=self.input == "paths")
        x = self._checked(X, reset=False)
        if x.shape[1:] != (config.stretch_frames, config.n_bands):
            frames, bands = x.shape[1:]
            raise ValueError(
                f"X has {frames} frames of {bands} bands, but {type(self).__name__} was fitted on "
                f"{config.stretch_frames} frames of {config.n_bands} bands"
            )
        return _padded(x)

    def _checked(self, X: Clips, *, reset: bool) -> features.Array:
        """Checks features, adds a time axis to spectra and returns `[n, T, F]`."""
        x = validate_data(self, X, reset=reset, dtype=np.float32, allow_nd=True, ensure_min_samples=2 if reset else 1)
        if x.ndim > 3:
            raise ValueError(f"features must be [n, T, F] or [n, F], got {x.ndim} dimensions")
        result: features.Array = np.repeat(x[:, None], features.STRIDE, axis=1) if x.ndim == 2 else x
        return result

    @property
    def _n_features_out(self) -> int:
        return self.model_.config.model.latent_dim

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.input == "features"
        tags.input_tags.three_d_array = self.input == "features"
        tags.input_tags.string = self.input == "paths"
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _settings(config: Config) -> dict[str, Any]:
    """Returns the settings of an estimator, which has neither a corpus nor a split."""
    sections = asdict(config)
    return {name: value for section in _SECTIONS for name, value in sections[section].items()}


def _padded(x: features.Array) -> tuple[features.Array, features.Mask]:
    """Pads features to whole strides of the network, and returns them with a mask `[n, T]` of unpadded frames."""
    n, frames, bands = x.shape
    padded = np.pad(x, ((0, 0), (0, -frames % features.STRIDE), (0, -bands % features.STRIDE)))
    return padded, np.broadcast_to(np.arange(padded.shape[1]) < frames, (n, padded.shape[1])).copy()


def _extracted(X: Clips, config: FeatureConfig, *, paths: bool) -> tuple[features.Array, features.Mask]:
    """Returns unnormalised features `[n, T, F]` of recordings or audio and their activity mask `[n, T]`."""
    if isinstance(X, str | Path):
        raise ValueError(f"X must be a sequence of paths, got the single path {X}")
    clips = list(X)
    if not clips:
        raise ValueError("X contains no clip")
    read = _recording if paths else _samples
    parts = [
        features.extract_usable(
            [read(clip, config) for clip in clips[start : start + EVAL_BATCH]],
            durations=[math.nan] * len(clips[start : start + EVAL_BATCH]),
            config=config,
        )
        for start in range(0, len(clips), EVAL_BATCH)
    ]
    for number, reason in enumerate(reason for *_, reasons in parts for reason in reasons):
        if reason:
            raise CatuvacError(f"clip {number} of X: {reason}; leave it out of X")
    return torch.cat([x for x, *_ in parts]).numpy(), torch.cat([mask for _, mask, _ in parts]).numpy()


def _recording(path: Any, config: FeatureConfig) -> Tensor:
    try:
        return audio.load(path, sample_rate=config.sample_rate, seconds=config.clip_seconds)
    except AudioError as error:
        raise CatuvacError(f"{path}: {error}; leave it out of X") from error


def _samples(clip: Any, config: FeatureConfig) -> Tensor:
    samples = check_array(clip, dtype=np.float32, ensure_2d=False, input_name="a clip of X")
    if samples.ndim != 1:
        raise ValueError(f"a clip of X must be samples [s] of one channel, got shape {samples.shape}")
    return torch.from_numpy(samples[: math.ceil(config.clip_seconds * config.sample_rate)].copy())
