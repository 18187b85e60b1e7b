"""Cat. UVAC by scikit-learn's contract: `fit` and `predict` on recordings, audio or features, without a corpus.

Shape legend: n clips, T frames, F bands, K clusters, d latent dimensions.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
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
Clips = Sequence[str | Path] | Sequence[ArrayLike] | NDArray[Any]  # as `input` says

_PRESET = preset("folder")  # any recordings: the defaults are its settings
_FRONT_END, _MODEL, _TRAINING = _PRESET.features, _PRESET.model, _PRESET.training
_SECTIONS = ("features", "model", "training")  # of a configuration: there is neither a corpus nor a split here


class CatUVACClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Clusters recordings by a categorical variational autoencoder.

    All clips of `fit` train. Labels have no part in it: `y` is accepted everywhere and read nowhere. One `random_state`
    with one number of threads gives one result on a CPU, bit for bit.

    What X is, `input` says:

    - `"features"`: numbers `[n, T, F]`, T frames of F bands each, on any scale. `[n, F]` are spectra without a time
      axis, which are taken as clips whose frames are all alike. At `predict`, T and F must be those of `fit`.
    - `"audio"`: n arrays of samples, of one length or of several, at `sample_rate` Hz.
    - `"paths"`: n paths of recordings of any rate, which are read as `catuvac prepare` reads them.

    Args:
        n_clusters: K.
        input: what X is.
        sample_rate: Hz, of arrays of audio, and to which recordings are resampled; features do without.
        clip_seconds: s; longer clips are cut, shorter ones padded; features do without.
        latent_dim: d, the dimensions of z, which `transform` returns.
        beta: weight of the divergence of q(y | x) from equal clusters.
        epochs: passes over the clips. Few clips need many.
        batch_size: clips per step; ten or more for each cluster are best.
        tau_start, tau_end: Gumbel-Softmax temperature at the first and at the last step; it only falls.
        tau_schedule: how it falls.
        cluster_init: what teaches q(y | x) in the warm-up.
        warmup_share: share of the epochs that warm up.
        n_init: starts, of which the one with most invariant information goes on; above 1 for "invariance" alone.
        invariance: weight of the term by which two views of a clip share a cluster.
        views: what clusters must not depend on: another moment ("scene") or another speaker ("speech").
        view_strength: how far a view lies from its clip, in [0, 1].
        settings: any other setting of `catuvac.Config` by its name, such as `{"n_bands": 40, "lr_start": 5e-4}`.
        random_state: seed of the weights, the order of the clips and the noise, as --seed of `catuvac train`.
        device: of the training; "auto" takes CUDA where present. Predictions are computed on the CPU.
        verbose: 1 prints a line per evaluation to standard error.

    Attributes:
        labels_: cluster `[n]` of each clip of `fit`, 0 to K - 1, the same as `predict` gives.
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
        """An estimator with the features, the model and the training of a preset, such as "fsdd" for spoken digits.

        Args:
            name: as for `catuvac train --preset`.
            parameters: of the estimator, in place of the preset's.

        Raises:
            ConfigError: an unknown preset.
        """
        own, further = cls._get_param_names(), {}
        for setting, value in _settings(preset(name)).items():
            if setting in own:
                parameters.setdefault(setting, value)
            elif value != _settings(_PRESET)[setting]:
                further[setting] = value
        return cls(**{**parameters, "settings": {**further, **(parameters.get("settings") or {})}})

    def fit(self, X: Clips, y: object = None) -> Self:
        """Trains on all clips of X.

        Args:
            X: n clips, as `input` says.
            y: not read.

        Raises:
            ValueError: features that are no finite numbers of a fitting shape, or fewer clips than clusters.
            CatuvacError: a parameter outside its range, a recording or an array of audio that cannot be used, or a
                training that diverged.
        """
        del y
        if self.input == "features":
            given = self._given(X, reset=True)
            raw, mask = _padded(given)
            frames, bands = given.shape[1:]
            shape = {"kind": "array", "time_fit": "stretch", "stretch_frames": frames, "n_bands": bands}
            config = self._config().with_settings(shape)
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
        """The most probable cluster of each clip, `[n]`; arguments and errors as for `fit`."""
        return self._prediction(X).clusters

    def predict_proba(self, X: Clips) -> NDArray[np.float32]:
        """q(y | x), `[n, K]`, rows that sum to 1; arguments and errors as for `fit`."""
        return self._prediction(X).probabilities

    def transform(self, X: Clips) -> NDArray[np.float32]:
        """Posterior mean of z, `[n, d]`, what tells clips of a cluster apart; arguments and errors as for `fit`."""
        return self._prediction(X).z

    def score(self, X: Clips, y: object = None) -> float:
        """Invariant information of the clusters, in [0, 1]: what a study maximises, without labels.

        It is the mutual information between the clusters of two views of each clip, over log K. Collapse and indecision
        give 0. The views are the same for all models with the same `views` and `view_strength`, so that a search over
        other parameters may compare them.
        """
        del y
        check_is_fitted(self)
        return self.model_.invariant_information(*self._raw(X))

    def save(self, folder: str | Path) -> None:
        """Writes the model for `catuvac.load` and `catuvac assign`.

        Raises:
            CatuvacError: the folder holds a run already, or cannot be written.
        """
        check_is_fitted(self)
        inference.save(self.model_, Path(folder))

    def _config(self) -> Config:
        """The configuration that the parameters describe; raises `ConfigError` for one that is impossible."""
        parameters, further = self.get_params(deep=False), dict(self.settings or {})
        kinds: tuple[str, ...] = get_args(Input)
        if self.input not in kinds:
            raise ConfigError(f"input must be one of {', '.join(kinds)}; got {self.input!r}")
        known = [name for name in _settings(_PRESET) if name != "seed" and name not in parameters]
        for name in further:
            if name not in known:
                own = "random_state" if name == "seed" else name
                place = f"{own} is a parameter of its own" if own in parameters else unknown("setting", name, known)
                raise ConfigError(f"settings: {place}")
        own_settings = {name: value for name, value in parameters.items() if name in _settings(_PRESET)}
        return _PRESET.with_settings({**own_settings, **further, "seed": self._seed()})

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _prediction(self, X: Clips) -> Prediction:
        check_is_fitted(self)
        return self.model_.predict_features(*self._raw(X))

    def _raw(self, X: Clips) -> tuple[features.Array, features.Mask]:
        """Features `[n, T, F]` of new clips, before the normaliser, and their activity mask `[n, T]`."""
        config = self.model_.config.features
        if self.input != "features":
            return _extracted(X, config, paths=self.input == "paths")
        given = self._given(X, reset=False)
        if given.shape[1:] != (config.stretch_frames, config.n_bands):
            frames, bands = given.shape[1:]
            raise ValueError(
                f"X has {frames} frames of {bands} bands, but {type(self).__name__} was fitted on "
                f"{config.stretch_frames} frames of {config.n_bands} bands"
            )
        return _padded(given)

    def _given(self, X: Clips, *, reset: bool) -> features.Array:
        """Checks features, and gives spectra a time axis: `[n, T, F]`."""
        x = validate_data(self, X, reset=reset, dtype=np.float32, allow_nd=True, ensure_min_samples=2 if reset else 1)
        if x.ndim > 3:
            raise ValueError(f"features must be [n, T, F] or [n, F], got {x.ndim} dimensions")
        given: features.Array = np.repeat(x[:, None], features.STRIDE, axis=1) if x.ndim == 2 else x
        return given

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
    """The settings that an estimator has: there is neither a corpus nor a split."""
    sections = config.to_dict()
    return {name: value for section in _SECTIONS for name, value in sections[section].items()}


def _padded(x: features.Array) -> tuple[features.Array, features.Mask]:
    """Pads features to whole strides of the network, and says which frames `[n, T]` are none of the padding."""
    n, frames, bands = x.shape
    padded = np.pad(x, ((0, 0), (0, -frames % features.STRIDE), (0, -bands % features.STRIDE)))
    return padded, np.broadcast_to(np.arange(padded.shape[1]) < frames, (n, padded.shape[1])).copy()


def _extracted(X: Clips, config: FeatureConfig, *, paths: bool) -> tuple[features.Array, features.Mask]:
    """Features `[n, T, F]` of recordings or of audio, before the normaliser, and their activity mask `[n, T]`."""
    if isinstance(X, str | Path):
        raise ValueError(f"X must be a sequence of paths, got the one path {X}")
    clips = list(X)
    if not clips:
        raise ValueError("X holds no clip")
    read = _recording if paths else _samples
    parts = [
        features.extract_batch(
            [read(clip, config) for clip in clips[start : start + EVAL_BATCH]],
            durations=[math.nan] * len(clips[start : start + EVAL_BATCH]),
            config=config,
        )
        for start in range(0, len(clips), EVAL_BATCH)
    ]
    x, mask = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
    loud = np.flatnonzero(~np.isfinite(x).all(axis=(1, 2)))
    if len(loud):
        raise CatuvacError(f"clip {loud[0]} of X is too loud for float32: full scale is 1")
    return x, mask


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
