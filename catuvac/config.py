"""Every setting of a run, as frozen dataclasses: presets, YAML, overrides and a stable hash.

A `Config` contains everything that determines a result and nothing that depends on the machine: the locations of the
recordings, the cache and the results are flags of commands, so the same configuration has the same hash everywhere.
Field names are unique across all sections, because trial tables have flat columns, such as `config/tau_start`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import types
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from catuvac import artifacts
from catuvac.errors import CatuvacError
from catuvac.training.schedules import Shape, anneal

if TYPE_CHECKING:
    import yaml

FeatureKind = Literal["spectrogram", "log_mel", "mel_cepstrum", "embedding", "array"]
TimeFit = Literal["pad", "stretch"]
ClipNorm = Literal["none", "mean", "mean_var"]
CorpusNorm = Literal["none", "mean_var"]
SplitKind = Literal["random", "grouped", "official"]
BetaOn = Literal["kl_y", "kl", "reconstruction"]
Likelihood = Literal["bernoulli", "gaussian"]
Method = Literal["cat_uvac", "uvac"]
ClusterInit = Literal["random", "kmeans", "pca_gmm", "invariance"]
Estimator = Literal["gumbel", "straight_through", "exact"]
ViewSet = Literal["speech", "scene"]
Precision = Literal["auto", "bf16", "float32"]


MAX_YAML_BYTES = 1 << 18  # of a settings file, which usually has a few kilobytes
MAX_YAML_NODES = 10_000  # values in it, with every alias expanded
MAX_YAML_DEPTH = 50  # nesting levels; PyYAML recurses once per level, so the interpreter's own limit would not suffice
CLIPS_A_CLUSTER = 2  # minimum per batch; ten or more are better
DECODER_SHARE = 0.2  # of an invariance warm-up: the decoder learns what the clusters sound like
SPEECH_EMBEDDING = 16000, 96  # Hz and numbers per frame of the default model of kind "embedding"
TRIAL_SHARE = 1 / 3  # of an invariance start: after it, only the best of several starts continues


# Metadata of settings that were added after the first results: at its default such a setting is omitted from the plain
# values, so the hashes, trial tables and cache entries of configurations that do not use it remain valid.
LATER = {"omit_default": True}


class ConfigError(CatuvacError):
    """A setting that does not exist or a value outside its range."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The recordings."""

    # synthetic | fsdd | arabic_digits | speech_commands | audiomnist | tau2019 | urbansound8k | folder
    corpus: str = "synthetic"
    limit: int = 0  # number of clips to draw from the corpus; 0 uses all
    stratify: bool = False  # limit: draw the same number of clips from every label
    partial: bool = False  # accept tables that list absent files, and files that do not match the pattern
    folder_labels: bool = False  # folder: the first sub-folder below the root is the label
    # folder: regular expression for the start of each path below --data-root; its named groups become the label and
    # nuisance columns, as in (?P<label>[^/]+)/(?P<speaker>\d+)_
    pattern: str = field(default="", metadata=LATER)
    # folder: CSV of clips with a column path and, optionally, label, start and end (s), and split (train, val, test);
    # all other columns are nuisance columns; the file and its paths are relative to --data-root
    table: str = field(default="", metadata=LATER)
    words: tuple[str, ...] = field(default=(), metadata=LATER)  # speech_commands: words to use; empty uses all
    n_classes: int = 5  # synthetic: number of acoustic scenes
    clips_per_class: int = 120  # synthetic
    overlap: float = 0.0  # synthetic: share of a background common to all classes, in [0, 1]
    corpus_seed: int = 0  # synthetic: determines every clip; limit: determines which clips are drawn

    def __post_init__(self) -> None:
        _require(self.limit >= 0, f"limit must not be negative, got {self.limit}")
        _require(self.limit > 0 or not self.stratify, "stratify needs a limit: it only affects how clips are drawn")
        for name, corpus in (("pattern", "folder"), ("table", "folder"), ("words", "speech_commands")):
            used = bool(getattr(self, name)) and self.corpus != corpus
            _require(not used, f"{name} is a setting of corpus {corpus}, not of {self.corpus}: leave it out")
        _require(
            self.folder_labels + bool(self.pattern) + bool(self.table) <= 1,
            "give one of folder_labels, pattern and table: each provides the metadata of the clips",
        )
        if self.pattern:
            try:
                groups = re.compile(self.pattern).groupindex
            except re.error as error:
                raise ConfigError(f"pattern {self.pattern!r} is not a regular expression: {error}") from error
            _require(len(groups) > 0, f"pattern {self.pattern!r} has no named group; name one, as in (?P<label>[^/]+)/")
        _require(len(set(self.words)) == len(self.words), f"words contains a word twice: {' '.join(self.words)}")
        _require(self.n_classes >= 2, f"n_classes must be at least 2, got {self.n_classes}")
        _require(self.clips_per_class >= 1, f"clips_per_class must be at least 1, got {self.clips_per_class}")
        _require(0.0 <= self.overlap <= 1.0, f"overlap must lie in [0, 1], got {self.overlap}")
        _require(self.corpus_seed >= 0, f"corpus_seed must not be negative, got {self.corpus_seed}")


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """The front end, from samples to a feature image `[T, F]` in [0, 1] (design, section 3)."""

    kind: FeatureKind = "log_mel"  # array: features computed elsewhere, only for CatUVACClusterer
    sample_rate: int = 16000  # Hz; recordings are resampled to this rate
    clip_seconds: float = 1.0  # s; longer clips are cut, shorter ones padded or stretched
    window: int = 1024  # samples, Hann
    hop: int = 512  # samples
    n_bands: int = 32  # mel bands, cepstral coefficients, or kept spectrogram bins
    low_bin: int = 0  # spectrogram: the first kept bin
    decibels: bool = True  # level in dB; False keeps linear magnitude (spectrogram only)
    top_db: float = 80.0  # dB below a clip's peak at which its level is floored
    time_fit: TimeFit = "pad"  # pad: zeros after the clip; stretch: interpolates the active part to stretch_frames
    stretch_frames: int = 32  # frames, used by time_fit "stretch"
    clip_norm: ClipNorm = "none"  # per clip and band: subtract the mean, divide by the deviation over time
    corpus_norm: CorpusNorm = "none"  # per band, with statistics of the training split
    activity_db: float = 40.0  # frames this many dB below the clip's loudest frame are inactive
    context: float = field(default=0.0, metadata=LATER)  # s; windows that clips are cut into; 0: whole clips
    weights: str = field(default="", metadata=LATER)  # embedding: an ONNX file; default: Google's speech embedding

    def __post_init__(self) -> None:
        _require(self.sample_rate > 0, f"sample_rate must be positive, got {self.sample_rate} Hz")
        _require(
            0 < self.clip_seconds < math.inf,
            f"clip_seconds must be positive and finite, got {self.clip_seconds} s",
        )
        _require(0 < self.hop <= self.window, f"hop must lie in [1, window={self.window}], got {self.hop}")
        _require(self.n_bands >= 1, f"n_bands must be at least 1, got {self.n_bands}")
        _require(self.stretch_frames >= 1, f"stretch_frames must be at least 1, got {self.stretch_frames}")
        _require(self.top_db > 0, f"top_db must be positive, got {self.top_db} dB")
        _require(self.activity_db > 0, f"activity_db must be positive, got {self.activity_db} dB")
        _require(self.decibels or self.kind == "spectrogram", f"kind {self.kind!r} is always in decibels")
        bins = self.window // 2 + 1
        _require(
            self.kind != "spectrogram" or 0 <= self.low_bin <= bins - self.n_bands,
            f"low_bin + n_bands must stay within the {bins} bins of window={self.window}, "
            f"got {self.low_bin} + {self.n_bands}",
        )
        _require(
            0 <= self.context <= self.clip_seconds,
            f"context must lie in [0, clip_seconds={self.clip_seconds}] s, got {self.context}",
        )
        _require(self.kind == "embedding" or not self.weights, f"kind {self.kind!r} reads no weights")
        _require(
            self.kind != "embedding" or bool(self.weights) or (self.sample_rate, self.n_bands) == SPEECH_EMBEDDING,
            "the speech embedding needs sample_rate {} and n_bands {}".format(*SPEECH_EMBEDDING)
            + f", got {self.sample_rate} and {self.n_bands}; set them, or give weights",
        )

    @property
    def seconds(self) -> float:
        """The length in s of what the networks see at a time: a whole clip, or a window of `context`."""
        return self.context or self.clip_seconds


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """The assignment of clips to the training, validation and test splits."""

    split: SplitKind = "random"  # random: stratified; grouped: no group in two splits; official: the corpus's own
    group: str = ""  # grouped: column of the clip table whose values must not straddle splits
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        total = self.val_fraction + self.test_fraction
        _require(self.val_fraction > 0, f"val_fraction must be positive, got {self.val_fraction}")
        _require(self.test_fraction > 0, f"test_fraction must be positive, got {self.test_fraction}")
        _require(0 <= self.split_seed < 2**32, f"split_seed must lie in [0, 2^32), got {self.split_seed}")
        _require(total < 1, f"val_fraction + test_fraction must be below 1, got {total}")
        _require((self.split == "grouped") == bool(self.group), "split 'grouped' and group=COLUMN belong together")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The models (design, section 2); K is `n_clusters`, d is `latent_dim`."""

    method: Method = "cat_uvac"  # uvac: the baseline with a Gaussian-mixture prior over z in place of y
    n_clusters: int = 10
    latent_dim: int = 10
    beta: float = 1.0  # the one non-trainable weight
    beta_on: BetaOn = "kl_y"  # the term that beta weights: the paper does not specify it
    likelihood: Likelihood = "bernoulli"
    sigma: float = 0.1  # gaussian: standard deviation of a feature cell; 0: the residual of d principal axes
    beta_marginal: float | None = None  # weight of KL(mean of q(y|x) || 1/K), for equal clusters; None: as beta
    beta_information: float | None = None  # weight of I(x; y); a positive weight lowers it; None: as beta
    y_estimator: Estimator = "gumbel"  # straight_through: one-hot forward; exact: sums over all K, without tau
    channels: int = field(default=16, metadata=LATER)  # of the first convolution; the others have 2, 4, 8 × as many
    gru_size: int = field(default=128, metadata=LATER)  # of each recurrent layer

    def __post_init__(self) -> None:
        _require(self.n_clusters >= 2, f"n_clusters must be at least 2, got {self.n_clusters}")
        _require(self.latent_dim >= 1, f"latent_dim must be at least 1, got {self.latent_dim}")
        _require(self.channels >= 1, f"channels must be at least 1, got {self.channels}")
        _require(self.gru_size >= 1, f"gru_size must be at least 1, got {self.gru_size}")
        _require(self.beta >= 0, f"beta must not be negative, got {self.beta}")
        _require(self.sigma >= 0, f"sigma must not be negative, got {self.sigma}")
        for name in ("beta_marginal", "beta_information"):
            weight = getattr(self, name)
            _require(weight is None or math.isfinite(weight), f"{name} must be finite, got {weight}")
            _require(weight is None or self.method == "cat_uvac", f"{name} weights a term that only cat_uvac has")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation and annealing of the temperature."""

    epochs: int = 500
    batch_size: int = 64  # clips
    lr_start: float = 1e-3
    lr_end: float = 1e-4  # reached exponentially at the last step
    tau_start: float = 1.0  # Gumbel-Softmax temperature at the first step
    tau_end: float = 0.5  # and at the last step; never above tau_start
    tau_schedule: Shape = "exponential"
    grad_clip: float = 10.0  # largest gradient norm
    eval_every: int = 10  # epochs between evaluations; the last epoch is always evaluated
    cluster_init: ClusterInit = "random"  # target of q(y|x) in the warm-up: a baseline's clusters, or invariance
    warmup_share: float = 0.0  # first epochs: q(y|x) learns its start, or is frozen (random); uvac: autoencoder
    n_init: int = 1  # cluster_init invariance: number of starts; only the one with most invariant information continues
    invariance: float = 0.0  # weight of balanced invariance next to the ELBO, whose pull on q(y|x) it limits to 1
    views: ViewSet = "scene"  # the variation that invariance makes q(y|x) ignore
    view_strength: float = 0.5  # distance of the views from their clip
    lr_y_scale: float = 1.0  # learning rate of q(y|x) after the warm-up, as a share of the others'
    seed: int = 0  # of the weights, the order of the clips and the Gumbel noise
    precision: Precision = "auto"  # auto: bf16 autocast if the device supports it, else float32
    deterministic: bool = False  # CUDA: bit-identical weights, slower; a CPU always gives them, and identical scores

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        _require(self.batch_size >= 2, f"batch_size must be at least 2 (batch norm), got {self.batch_size}")
        _require(self.lr_start > 0, f"lr_start must be positive, got {self.lr_start}")
        _require(
            0 < self.lr_end <= self.lr_start, f"lr_end must lie in (0, lr_start={self.lr_start}], got {self.lr_end}"
        )
        _require(0 < self.tau_start < math.inf, f"tau_start must be positive and finite, got {self.tau_start}")
        _require(
            0 < self.tau_end <= self.tau_start,
            f"tau_end must lie in (0, tau_start={self.tau_start}]: the temperature only falls; got {self.tau_end}",
        )
        _require(
            self.tau_schedule != "constant" or self.tau_start == self.tau_end,
            f"a constant tau_schedule needs tau_start == tau_end, got {self.tau_start} and {self.tau_end}",
        )
        _require(self.grad_clip > 0, f"grad_clip must be positive, got {self.grad_clip}")
        _require(self.eval_every >= 1, f"eval_every must be at least 1, got {self.eval_every}")
        _require(0 <= self.warmup_share < 1, f"warmup_share must lie in [0, 1), got {self.warmup_share}")
        _require(
            self.cluster_init == "random" or self.warmup_share > 0,
            f"cluster_init {self.cluster_init!r} needs a warmup_share above 0, in which the clusters are learned",
        )
        _require(self.n_init >= 1, f"n_init must be at least 1, got {self.n_init}")
        _require(
            self.n_init == 1 or self.cluster_init == "invariance",
            f"n_init={self.n_init} needs cluster_init 'invariance': only it trains several starts",
        )
        _require(0 <= self.invariance < math.inf, f"invariance must be finite and not negative, got {self.invariance}")
        _require(0 <= self.view_strength <= 1, f"view_strength must lie in [0, 1], got {self.view_strength}")
        _require(self.lr_y_scale > 0, f"lr_y_scale must be positive, got {self.lr_y_scale}")
        _require(0 <= self.seed < 2**32, f"seed must lie in [0, 2^32), got {self.seed}")

    @property
    def warmup_epochs(self) -> int:
        """The number of warm-up epochs: at least one if there is a warm-up share, and never all epochs."""
        return min(self.epochs - 1, max(1, round(self.warmup_share * self.epochs))) if self.warmup_share else 0

    @property
    def start_epochs(self) -> int:
        """The number of warm-up epochs in which q(y|x) learns by invariance; in the others the decoder learns."""
        if self.cluster_init != "invariance" or not self.warmup_epochs:
            return 0
        return max(1, self.warmup_epochs - max(1, round(DECODER_SHARE * self.warmup_epochs)))

    @property
    def trial_epochs(self) -> int:
        """The number of epochs that each of the `n_init` starts trains before only the best one continues."""
        return max(1, round(TRIAL_SHARE * self.start_epochs)) if self.n_init > 1 else 0

    def annealing_progress(self, *, epoch: int, step: int = 0, steps: int) -> float:
        """Returns the progress of the temperature schedule, in [0, 1]: it starts when tau begins to affect q(y | x).

        Args:
            epoch: number of finished epochs.
            step: number of finished steps of the next epoch.
            steps: number of steps per epoch.
        """
        warmup = self.warmup_epochs
        return max(0.0, ((epoch - warmup) * steps + step) / max(1, (self.epochs - warmup) * steps - 1))

    def tau_at(self, *, epoch: int, step: int = 0, steps: int) -> float:
        """Returns the temperature of a step; arguments as in `annealing_progress`."""
        progress = self.annealing_progress(epoch=epoch, step=step, steps=steps)
        return anneal(self.tau_start, self.tau_end, progress=progress, shape=self.tau_schedule)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one run: corpus → features → split → model → training."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        invariant = self.training.invariance > 0 or self.training.cluster_init == "invariance"
        _require(
            not invariant or self.model.method == "cat_uvac",
            f"invariance needs a q(y|x), and {self.model.method} has none: set invariance 0 and cluster_init kmeans",
        )
        least = CLIPS_A_CLUSTER * self.model.n_clusters
        _require(
            not invariant or self.training.batch_size >= least,
            f"invariance balances {self.model.n_clusters} clusters over a batch: batch_size must be at least {least}, "
            f"got {self.training.batch_size}",
        )

    @classmethod
    def from_dict(cls, nested: Mapping[str, Any]) -> Self:
        """Builds a configuration from nested mappings, as read from YAML.

        Raises:
            ConfigError: an unknown section or key (naming the nearest known one), a wrong type or a bad value.
        """
        return cls().updated(nested)

    def updated(self, nested: Mapping[str, Any]) -> Self:
        """Returns a copy with the sections and keys of `nested` replaced; raises `ConfigError` as `from_dict` does."""
        sections = {}
        for section, values in nested.items():
            _require(section in SECTIONS, unknown("section", section, SECTIONS))
            _require(isinstance(values, Mapping), f"section {section!r} must contain settings, got {values!r}")
            old = getattr(self, section)
            sections[section] = replace(old, **{k: _typed(SECTIONS[section], k, v) for k, v in values.items()})
        return replace(self, **sections)

    def with_settings(self, flat: Mapping[str, Any]) -> Self:
        """Returns a copy with settings replaced by their unique names, as in `{"tau_start": 2.0, "latent_dim": 4}`."""
        nested: dict[str, dict[str, Any]] = {}
        for name, value in flat.items():
            _require(name in SECTION_OF, unknown("setting", name, SECTION_OF))
            nested.setdefault(SECTION_OF[name], {})[name] = value
        return self.updated(nested)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Returns nested plain values, which `Config.from_dict` reads back."""
        return {section: plain(getattr(self, section)) for section in SECTIONS}

    def flat(self) -> dict[str, Any]:
        """Returns every setting by its name as a single table value; lists of words are joined with spaces."""
        settings = {name: value for section in self.to_dict().values() for name, value in section.items()}
        return {name: " ".join(value) if isinstance(value, list) else value for name, value in settings.items()}

    def hash(self) -> str:
        """Returns twelve hexadecimal digits that depend on every setting and on nothing else."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def features_hash(self) -> str:
        """Returns the hash of the settings that the prepared features depend on: corpus, features and split."""
        return Config(corpus=self.corpus, features=self.features, split=self.split).hash()

    def start_hash(self) -> str:
        """Returns the hash of what the invariance start depends on: runs with the same hash have the same start.

        The start uses neither the temperature nor the terms and weights of the ELBO, which come after it.
        """
        return self.with_settings({name: DEFAULTS[name] for name in AFTER_START}).hash()

    def to_yaml(self) -> str:
        """Returns YAML that `load_yaml` reads back to an equal configuration."""
        import yaml  # imported here: `catuvac --help` must stay fast

        return yaml.safe_dump(self.to_dict(), sort_keys=False)


SECTIONS: dict[str, type[Any]] = {
    "corpus": CorpusConfig,
    "features": FeatureConfig,
    "split": SplitConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
}
SECTION_OF: dict[str, str] = {f.name: section for section, cls in SECTIONS.items() for f in fields(cls)}


def plain(section: Any) -> dict[str, Any]:
    """Returns a section's settings as YAML and JSON store them, without `LATER` ones at their default."""
    values = dataclasses.asdict(section)
    return {
        f.name: list(values[f.name]) if isinstance(values[f.name], tuple) else values[f.name]
        for f in fields(section)
        if not (f.metadata == LATER and values[f.name] == f.default)
    }


AFTER_START = (  # settings that the invariance start does not use
    "tau_start",
    "tau_end",
    "tau_schedule",
    "beta",
    "beta_on",
    "beta_marginal",
    "beta_information",
    "likelihood",
    "sigma",
    "y_estimator",
    "invariance",
    "lr_y_scale",
)
# Values that plain values, and therefore the columns of a table, omit.
OMITTED: dict[str, Any] = {f.name: f.default for cls in SECTIONS.values() for f in fields(cls) if f.metadata == LATER}
DEFAULTS: dict[str, Any] = {f.name: f.default for cls in SECTIONS.values() for f in fields(cls)}


def check_threads(count: int) -> None:
    """Raises `ConfigError` for a negative number of torch's threads; 0 stands for a default."""
    if count < 0:
        raise ConfigError(f"--threads must not be negative, got {count}")


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ between two configurations, with both values; None: the setting is not used."""
    before, after = old.flat(), new.flat()
    pairs = {name: (before.get(name), after.get(name)) for name in {**before, **after}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a mapping from a YAML file.

    Raises:
        ConfigError: the file is absent, unreadable, damaged, not YAML or not a mapping; it contains a key twice, or its
            aliases expand to more values than settings can have.
    """
    import yaml

    advice = f"{artifacts.ADVICE}, or, if the change is intended, delete its first line"
    try:
        text = artifacts.read(path, limit=MAX_YAML_BYTES, advice=advice).decode("utf-8")
        _check_depth(text)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        _check_nodes(root)
        mapping = None if root is None else loader.construct_document(root)
    except CatuvacError as error:
        raise ConfigError(str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
    except _NoSettingsError as error:
        raise ConfigError(f"{path} {error}") from error
    except Exception as error:  # PyYAML passes on any exception of its value converters
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path} must contain settings by name, got a {type(mapping).__name__}")
    return mapping


class _NoSettingsError(Exception):
    """YAML that is larger than any settings; the text states in what respect."""


def _check_depth(text: str) -> None:
    """Raises `_NoSettingsError` for YAML that is nested more deeply than any settings.

    PyYAML's event parser keeps its own stack, but the constructor of values recurses.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise _NoSettingsError("is nested too deeply to contain settings")


def _check_nodes(root: yaml.Node | None) -> None:
    """Counts the values that a document expands to before they are built, and checks for duplicate keys.

    Raises:
        _NoSettingsError: more than `MAX_YAML_NODES` values, or an alias that contains itself.
        ValueError: a key of a mapping is given twice.
    """
    import yaml

    sizes: dict[int, float] = {}  # by node; an alias is the node that it refers to

    def size(node: yaml.Node) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = math.inf  # until its size is known; stays infinite for a node within itself
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
                if twice := [key for key, count in keys.items() if count > 1]:
                    raise ValueError(f"the key {twice[0]!r} is given twice below line {node.start_mark.line}")
                children = [child for pair in node.value for child in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(size(child) for child in children)
        return sizes[id(node)]

    if root is not None and size(root) > MAX_YAML_NODES:
        raise _NoSettingsError(f"expands to more than {MAX_YAML_NODES} values: write out its aliases")


def load_yaml(path: Path) -> Config:
    """Reads a configuration; raises `ConfigError` as `read_yaml` and `Config.from_dict` do."""
    try:
        return Config.from_dict(read_yaml(path))
    except ConfigError as error:
        raise error if str(path) in str(error) else ConfigError(f"{path}: {error}") from None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Returns a one-line message for an unknown name, with the nearest known name."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}; {hint}"


def _typed(cls: type[Any], name: str, value: Any) -> Any:
    """Checks a value against its field's type, as YAML, tables and command lines may contain any type."""
    if type(value).__module__ == "numpy":
        value = value.item()
    hints = typing.get_type_hints(cls)
    _require(name in hints, unknown("setting", name, hints))
    expected = hints[name]
    if typing.get_origin(expected) is types.UnionType:  # a number or None
        if value is None:
            return None
        expected = typing.get_args(expected)[0]
    if typing.get_origin(expected) is tuple:  # of words; tables store them as one string
        words = value.split() if isinstance(value, str) else value
        good = isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)
        _require(good, f"{name} must be a list of words, got {value!r}; in YAML, yes, no, on and off need quotes")
        return tuple(words)
    choices = typing.get_args(expected)
    if choices:
        _require(value in choices, f"{name} must be one of {', '.join(choices)}; got {value!r}")
        return value
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if expected is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f"{name} must be a number, got {value!r}") from None
    if expected is int and isinstance(value, float) and value.is_integer():
        return int(value)
    good = isinstance(value, expected) and not (expected is not bool and isinstance(value, bool))
    _require(good, f"{name} must be of type {expected.__name__}, got {value!r}")
    return value


# The paper's protocol, as far as it is specified: random weights, no pretraining and no additional term in the ELBO.
# The preset's corpus, features, likelihood, beta, d and epochs stay: unspecified, or determined by the corpus.
PAPER_METHOD = "cat_uvac_paper"  # the method name in tables of a Cat. UVAC trained with this protocol
PAPER_PROTOCOL: dict[str, Any] = {
    "tau_start": 1.0,
    "tau_end": 0.5,
    "tau_schedule": "exponential",
    "y_estimator": "gumbel",
    "beta_marginal": None,
    "beta_information": None,
    "cluster_init": "random",
    "warmup_share": 0.0,
    "n_init": 1,
    "invariance": 0.0,
    "lr_y_scale": 1.0,
    "batch_size": 64,
}

# Spoken digits: stretching the active part to a fixed length, with per-clip mean and variance normalisation, separates
# digits best (design, section 3); the paper's AudioMNIST preset pads and does not normalise.
_DIGITS = {
    "sample_rate": 8000,
    "window": 256,
    "hop": 80,
    "n_bands": 64,
    "time_fit": "stretch",
    "stretch_frames": 32,
    "clip_norm": "mean_var",
}
_WORDS = {**_DIGITS, "sample_rate": 16000, "window": 512, "hop": 160}  # the same durations at the corpora's own rate

# What the paper leaves open, plus our own start and additional term. The likelihood is Gaussian, with a sigma at which
# ten dimensions of z pay off (0 computes it), as in UVAC. beta is small, as in the paper. From random weights the ELBO
# alone merges clusters, so q(y|x) first learns by balanced invariance (SwAV's swapped assignment), and the term stays
# next to the ELBO: with a weight of 10, q(y|x) on FSDD drifted away from its start, with 20 it did not
# (studies/cold-start.md). All of this was decided on generated scenes and on label-free scores. A batch is balanced and
# must contain ten clips per cluster: with six, generated scenes merge. Beyond that, more steps per epoch help more than
# more clips per step: 128. Adam's usual 1e-3 decreases to a tenth so that the last epochs converge.
_OPEN = {
    "model": {"latent_dim": 10, "beta": 0.05, "likelihood": "gaussian", "sigma": 0.0},
    "training": {
        "epochs": 500,
        "batch_size": 128,
        "cluster_init": "invariance",
        "warmup_share": 0.5,
        "invariance": 20.0,
        "views": "scene",
        "view_strength": 0.5,
    },
}
_SPOKEN = {**_OPEN["training"], "views": "speech", "view_strength": 0.6}
# Field recordings and arbitrary folders: the gentlest views. On UrbanSound8K two seeds agree most with them, and most
# information survives every set of views; circular shifts harm padded clips.
_FIELD = {**_OPEN["training"], "views": "speech", "view_strength": 0.3}
_SHORT = {"epochs": 120, "warmup_share": 0.75, "n_init": 3}  # few clips: the start needs 72 epochs of 18 steps

# The paper's scene features: 16 kHz, STFT 960 Hann 50 %, 128 mel bands, mean and variance, min-max to [0, 1].
_SCENES = {"sample_rate": 16000, "window": 960, "hop": 480, "n_bands": 128, "corpus_norm": "mean_var"}

_TAU2019 = Config.from_dict(
    {
        **_OPEN,
        # The paper used 1 200 files and does not state which: equally many per scene, drawn with corpus_seed.
        "corpus": {"corpus": "tau2019", "limit": 1200, "stratify": True},
        "features": {**_SCENES, "clip_seconds": 10.0},
        # Segments of one recording sound alike: all clips of a location are in the same split.
        "split": {"split": "grouped", "group": "location"},
        "training": _FIELD,
    }
)
_URBANSOUND8K = Config.from_dict(
    {
        **_OPEN,
        "corpus": {"corpus": "urbansound8k"},
        # Zero-padded to 4 s; padding and silence are masked out of the reconstruction error.
        "features": {**_SCENES, "clip_seconds": 4.0},
        # Slices of one field recording (fsID) are in the same split.
        "split": {"split": "grouped", "group": "fs_id"},
        "training": _FIELD,
    }
)

PRESETS: dict[str, Config] = {
    # Five generated scenes, one second per clip; training takes half a minute.
    "synthetic": Config.from_dict(
        {
            "model": {**_OPEN["model"], "n_clusters": 5, "latent_dim": 4},
            "training": {**_OPEN["training"], "epochs": 40, "batch_size": 96, "eval_every": 5},
        }
    ),
    "fsdd": Config.from_dict(
        {
            **_OPEN,
            "corpus": {"corpus": "fsdd"},
            "features": _DIGITS,
            "split": {"split": "official"},
            # Twice as long as the others: the views then share more (0.82 of log K instead of 0.79, five seeds each).
            "training": {**_SPOKEN, **_SHORT, "epochs": 240},
        }
    ),
    "arabic_digits": Config.from_dict(
        {
            **_OPEN,
            "corpus": {"corpus": "arabic_digits"},
            "features": _WORDS,
            "training": {**_SPOKEN, **_SHORT},
        }
    ),
    # The ten words that serve as commands by convention, with about equally many clips each (3 723 to 4 044): balanced
    # invariance needs clusters of equal size. Features and start are those of the Arabic digits, which are also single
    # words at the same rate. The official lists keep each speaker in one split. Four fifths of the 38 546 clips are for
    # training, 240 steps per epoch, so 120 epochs have thirteen times as many steps as FSDD's training.
    "speech_commands": Config.from_dict(
        {
            **_OPEN,
            "corpus": {
                "corpus": "speech_commands",
                "words": ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"],
            },
            "features": _WORDS,
            "split": {"split": "official"},
            "training": {**_SPOKEN, **_SHORT},
        }
    ),
    # The paper: 30 000 digits split 24 000/3 000/3 000 at random, one second of magnitude spectrogram, trimmed bins.
    # It states neither rate nor bins: 16 kHz, and the 128 bins above 0 Hz of a 32 ms window, up to 4 kHz, which cover
    # the formants; higher bins distinguish fricatives and microphones.
    "audiomnist": Config.from_dict(
        {
            **_OPEN,
            "corpus": {"corpus": "audiomnist"},
            "features": {
                "kind": "spectrogram",
                "decibels": False,
                "sample_rate": 16000,
                "window": 512,
                "hop": 256,
                "low_bin": 1,
                "n_bands": 128,
            },
            "split": {"split": "random", "val_fraction": 0.1, "test_fraction": 0.1},
            "training": _SPOKEN,
        }
    ),
    "tau2019_k10": _TAU2019,
    "tau2019_k5": _TAU2019.with_settings({"n_clusters": 5}),
    "urbansound8k_k10": _URBANSOUND8K,
    "urbansound8k_k5": _URBANSOUND8K.with_settings({"n_clusters": 5}),
    # Any tree of audio files: the scene front end with two-second clips.
    "folder": Config.from_dict(
        {
            **_OPEN,
            "corpus": {"corpus": "folder"},
            "features": {"clip_seconds": 2.0, "window": 960, "hop": 480, "n_bands": 64, "corpus_norm": "mean_var"},
            "training": {**_FIELD, **_SHORT},
        }
    ),
}


def preset(name: str) -> Config:
    """Returns a preset; raises `ConfigError`, which names the nearest known one, for an unknown name."""
    _require(name in PRESETS, unknown("preset", name, PRESETS))
    return PRESETS[name]
