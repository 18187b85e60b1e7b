"""Every setting of a run, as frozen dataclasses: presets, YAML, overrides and a stable hash.

A `Config` holds everything that decides a result and nothing that depends on the machine: where the recordings, the
cache and the results live is a flag of a command, so the same configuration has the same hash everywhere.
Field names are unique over all sections: trial tables hold them flat, as `config/tau_start`.
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

FeatureKind = Literal["spectrogram", "log_mel", "mel_cepstrum", "array"]
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


MAX_YAML_BYTES = 1 << 18  # of a file of settings, which has a few kilobytes
MAX_YAML_NODES = 10_000  # values in it, with every alias written out
MAX_YAML_DEPTH = 50  # levels; PyYAML calls itself for each, so that the interpreter's own limit would not do
CLIPS_A_CLUSTER = 2  # of a batch, at least; ten or more are better
DECODER_SHARE = 0.2  # of a warm-up by invariance: the decoder learns what the clusters sound like
TRIAL_SHARE = 1 / 3  # of a start by invariance: after it, the best of several starts goes on alone


# A setting that came after the first results: at its default it is left out of the plain values, so that the hashes,
# trial tables and cache entries of configurations that do not use it stay what they were.
LATER = {"omit_default": True}


class ConfigError(CatuvacError):
    """A setting that does not exist or a value outside its range."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Which recordings."""

    # synthetic | fsdd | arabic_digits | speech_commands | audiomnist | tau2019 | urbansound8k | folder
    corpus: str = "synthetic"
    limit: int = 0  # clips to draw from the corpus; 0 takes all
    stratify: bool = False  # limit: the same number of clips of every label
    partial: bool = False  # accept a table that lists absent files, and files that do not match the pattern
    folder_labels: bool = False  # folder: the first sub-folder below the root is the label
    # folder: regular expression for the start of each path below --data-root; its named groups become the label and
    # nuisance columns, as in (?P<label>[^/]+)/(?P<speaker>\d+)_
    pattern: str = field(default="", metadata=LATER)
    # folder: CSV of clips with a column path, and optionally label, start and end (s), and split (train, val, test);
    # every other one is a nuisance column; it and its paths are relative to --data-root
    table: str = field(default="", metadata=LATER)
    words: tuple[str, ...] = field(default=(), metadata=LATER)  # speech_commands: which words; none takes all
    n_classes: int = 5  # synthetic: acoustic scenes
    clips_per_class: int = 120  # synthetic
    overlap: float = 0.0  # synthetic: share of a background common to all classes, in [0, 1]
    corpus_seed: int = 0  # synthetic: every clip follows from it; limit: which clips are drawn

    def __post_init__(self) -> None:
        _require(self.limit >= 0, f"limit must not be negative, got {self.limit}")
        _require(self.limit > 0 or not self.stratify, "stratify needs a limit: it says how the clips are drawn")
        for name, corpus in (("pattern", "folder"), ("table", "folder"), ("words", "speech_commands")):
            used = bool(getattr(self, name)) and self.corpus != corpus
            _require(not used, f"{name} is a setting of corpus {corpus}, not of {self.corpus}: leave it out")
        _require(
            self.folder_labels + bool(self.pattern) + bool(self.table) <= 1,
            "give one of folder_labels, pattern and table: each says what is known of a clip",
        )
        if self.pattern:
            try:
                groups = re.compile(self.pattern).groupindex
            except re.error as error:
                raise ConfigError(f"pattern {self.pattern!r} is not a regular expression: {error}") from error
            _require(len(groups) > 0, f"pattern {self.pattern!r} names no group; name one, as in (?P<label>[^/]+)/")
        _require(len(set(self.words)) == len(self.words), f"words has one twice: {' '.join(self.words)}")
        _require(self.n_classes >= 2, f"n_classes must be at least 2, got {self.n_classes}")
        _require(self.clips_per_class >= 1, f"clips_per_class must be at least 1, got {self.clips_per_class}")
        _require(0.0 <= self.overlap <= 1.0, f"overlap must lie in [0, 1], got {self.overlap}")
        _require(self.corpus_seed >= 0, f"corpus_seed must not be negative, got {self.corpus_seed}")


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """From samples to a picture `[T, F]` in [0, 1] (design, section 3)."""

    kind: FeatureKind = "log_mel"  # array: features computed elsewhere, for CatUVACClusterer alone
    sample_rate: int = 16000  # Hz; recordings are resampled to it
    clip_seconds: float = 1.0  # s; longer clips are cut, shorter ones padded or stretched
    window: int = 1024  # samples, Hann
    hop: int = 512  # samples
    n_bands: int = 32  # mel bands, cepstral coefficients, or kept spectrogram bins
    low_bin: int = 0  # spectrogram: first kept bin
    decibels: bool = True  # level in dB; False keeps linear magnitude (spectrogram only)
    top_db: float = 80.0  # dB below a clip's peak at which its level is floored
    time_fit: TimeFit = "pad"  # pad: zeros after the clip; stretch: active part interpolated to stretch_frames
    stretch_frames: int = 32  # frames, used by time_fit "stretch"
    clip_norm: ClipNorm = "none"  # per clip and band: subtract the mean, divide by the deviation over time
    corpus_norm: CorpusNorm = "none"  # per band, with statistics of the training split
    activity_db: float = 40.0  # frames this many dB below the clip's loudest frame are inactive

    def __post_init__(self) -> None:
        _require(self.sample_rate > 0, f"sample_rate must be positive, got {self.sample_rate} Hz")
        _require(self.clip_seconds > 0, f"clip_seconds must be positive, got {self.clip_seconds} s")
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


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which clips train, validate and test."""

    split: SplitKind = "random"  # random, stratified; grouped: no group on two sides; official: the corpus's own
    group: str = ""  # grouped: the clip-table column that must not straddle the splits
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
    """The models of section 2; K is `n_clusters`, d is `latent_dim`."""

    method: Method = "cat_uvac"  # uvac: the baseline with a Gaussian-mixture prior over z in place of y
    n_clusters: int = 10
    latent_dim: int = 10
    beta: float = 1.0  # the one non-trainable weight
    beta_on: BetaOn = "kl_y"  # the term that beta weighs: the paper's text does not say
    likelihood: Likelihood = "bernoulli"
    sigma: float = 0.1  # gaussian: standard deviation of a feature cell; 0: what d principal axes leave over
    beta_marginal: float | None = None  # weight of KL(mean of q(y|x) || 1/K): equal clusters; None: as beta
    beta_information: float | None = None  # weight of I(x; y), which a positive one lowers; None: as beta
    y_estimator: Estimator = "gumbel"  # straight_through: one-hot forward; exact: the sum over all K, without tau
    channels: int = field(default=16, metadata=LATER)  # of the first convolution; the next three have 2, 4 and 8 × that
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
            _require(weight is None or self.method == "cat_uvac", f"{name} weighs a term that only cat_uvac has")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation and the temperature's annealing."""

    epochs: int = 500
    batch_size: int = 64  # clips
    lr_start: float = 1e-3
    lr_end: float = 1e-4  # reached at the last step, exponentially
    tau_start: float = 1.0  # Gumbel-Softmax temperature at the first step
    tau_end: float = 0.5  # and at the last; never above tau_start
    tau_schedule: Shape = "exponential"
    grad_clip: float = 10.0  # largest gradient norm
    eval_every: int = 10  # epochs between evaluations; the last epoch is always evaluated
    cluster_init: ClusterInit = "random"  # what teaches q(y|x) in the warm-up: a baseline's clusters, or invariance
    warmup_share: float = 0.0  # first epochs: q(y|x) learns its start, or stands still (random); uvac: autoencoder
    n_init: int = 1  # cluster_init invariance: starts, of which the one with most invariant information soon goes on
    invariance: float = 0.0  # weight of balanced invariance beside the ELBO, whose pull on q(y|x) it limits to 1
    views: ViewSet = "scene"  # what invariance makes q(y|x) blind to
    view_strength: float = 0.5  # how far views lie from their clip
    lr_y_scale: float = 1.0  # learning rate of q(y|x) after the warm-up, as a share of the others'
    seed: int = 0  # weights, order of the clips and Gumbel noise
    precision: Precision = "auto"  # auto: bf16 autocast where the device computes it, else float32
    deterministic: bool = False  # CUDA: the same bits every time, slower; a CPU always gives them

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        _require(self.batch_size >= 2, f"batch_size must be at least 2 (batch norm), got {self.batch_size}")
        _require(self.lr_start > 0, f"lr_start must be positive, got {self.lr_start}")
        _require(
            0 < self.lr_end <= self.lr_start, f"lr_end must lie in (0, lr_start={self.lr_start}], got {self.lr_end}"
        )
        _require(self.tau_start > 0, f"tau_start must be positive, got {self.tau_start}")
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
            f"cluster_init {self.cluster_init!r} needs a warmup_share above 0, which teaches the clusters",
        )
        _require(self.n_init >= 1, f"n_init must be at least 1, got {self.n_init}")
        _require(
            self.n_init == 1 or self.cluster_init == "invariance",
            f"n_init={self.n_init} needs cluster_init 'invariance': the other starts do not train",
        )
        _require(0 <= self.invariance < math.inf, f"invariance must be finite and not negative, got {self.invariance}")
        _require(0 <= self.view_strength <= 1, f"view_strength must lie in [0, 1], got {self.view_strength}")
        _require(self.lr_y_scale > 0, f"lr_y_scale must be positive, got {self.lr_y_scale}")
        _require(0 <= self.seed < 2**32, f"seed must lie in [0, 2^32), got {self.seed}")

    @property
    def warmup_epochs(self) -> int:
        """The warm-up in epochs: one at least where there is a share, and never all."""
        return min(self.epochs - 1, max(1, round(self.warmup_share * self.epochs))) if self.warmup_share else 0

    @property
    def start_epochs(self) -> int:
        """The epochs of the warm-up in which q(y|x) learns by invariance; in the rest the decoder follows."""
        if self.cluster_init != "invariance" or not self.warmup_epochs:
            return 0
        return max(1, self.warmup_epochs - max(1, round(DECODER_SHARE * self.warmup_epochs)))

    @property
    def trial_epochs(self) -> int:
        """The epochs that each of `n_init` starts has before the best of them goes on alone."""
        return max(1, round(TRIAL_SHARE * self.start_epochs)) if self.n_init > 1 else 0

    def annealing_progress(self, *, epoch: int, step: int = 0, steps: int) -> float:
        """How much of the temperature's schedule is done, in [0, 1]: it starts where tau starts to reach q(y | x).

        Args:
            epoch: epochs that are finished.
            step: steps that are finished of the next one.
            steps: of an epoch.
        """
        warmup = self.warmup_epochs
        return max(0.0, ((epoch - warmup) * steps + step) / max(1, (self.epochs - warmup) * steps - 1))

    def tau_at(self, *, epoch: int, step: int = 0, steps: int) -> float:
        """The temperature of a step; arguments as in `annealing_progress`."""
        progress = self.annealing_progress(epoch=epoch, step=step, steps=steps)
        return anneal(self.tau_start, self.tau_end, progress=progress, shape=self.tau_schedule)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: corpus → features → split → model → training."""

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
        """Builds a configuration from nested mappings, as YAML holds them.

        Raises:
            ConfigError: an unknown section or key (with the nearest known one), a wrong type or a bad value.
        """
        return cls().updated(nested)

    def updated(self, nested: Mapping[str, Any]) -> Self:
        """Returns a copy with the sections and keys of `nested` replaced; raises `ConfigError` as `from_dict` does."""
        sections = {}
        for section, values in nested.items():
            _require(section in SECTIONS, unknown("section", section, SECTIONS))
            _require(isinstance(values, Mapping), f"section {section!r} must hold settings, got {values!r}")
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
        """Nested plain values; `Config.from_dict` takes them back."""
        return {section: plain(getattr(self, section)) for section in SECTIONS}

    def flat(self) -> dict[str, Any]:
        """Every setting under its own name, as one value of a table; several words have spaces between them."""
        settings = {name: value for section in self.to_dict().values() for name, value in section.items()}
        return {name: " ".join(value) if isinstance(value, list) else value for name, value in settings.items()}

    def hash(self) -> str:
        """Twelve hexadecimal digits that depend on every setting and on nothing else."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def start_hash(self) -> str:
        """As `hash`, of what the start by invariance depends on: trainings of one hash have the same start.

        It reads neither the temperature nor the terms and weights of the ELBO, which come after it.
        """
        return self.with_settings({name: DEFAULTS[name] for name in AFTER_START}).hash()

    def to_yaml(self) -> str:
        """YAML that `load_yaml` reads back to an equal configuration."""
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
    """A section's settings as YAML and JSON hold them, without those of `LATER` that are at their default."""
    values = dataclasses.asdict(section)
    return {
        f.name: list(values[f.name]) if isinstance(values[f.name], tuple) else values[f.name]
        for f in fields(section)
        if not (f.metadata == LATER and values[f.name] == f.default)
    }


AFTER_START = (  # settings that the start by invariance does not read
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
# What the plain values, and so the columns of a table, leave out of rows that have it.
OMITTED: dict[str, Any] = {f.name: f.default for cls in SECTIONS.values() for f in fields(cls) if f.metadata == LATER}
DEFAULTS: dict[str, Any] = {f.name: f.default for cls in SECTIONS.values() for f in fields(cls)}


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations differ, with both values; None stands for one that is not used."""
    before, after = old.flat(), new.flat()
    pairs = {name: (before.get(name), after.get(name)) for name in {**before, **after}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a mapping.

    Raises:
        ConfigError: the file is absent, unreadable, not as it was written, not YAML or no mapping; it names a key
            twice, or its aliases expand to more than settings ever have.
    """
    import yaml

    advice = f"{artifacts.ADVICE}, or, where the change is meant, delete its first line"
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
    except Exception as error:  # PyYAML passes on whatever its conversion of a value raises
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path} must hold settings by name, got a {type(mapping).__name__}")
    return mapping


class _NoSettingsError(Exception):
    """YAML that is larger than any settings; the text says by what."""


def _check_depth(text: str) -> None:
    """Raises `_NoSettingsError` for YAML that is nested deeper than any settings.

    PyYAML's parser of events keeps its own stack; what builds values of them calls itself.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise _NoSettingsError("is nested too deeply to hold settings")


def _check_nodes(root: yaml.Node | None) -> None:
    """Counts what a document expands to before it is built, and looks for keys that are given twice.

    Raises:
        _NoSettingsError: more than `MAX_YAML_NODES`, or an alias that holds itself.
        ValueError: a key of a mapping is given twice.
    """
    import yaml

    sizes: dict[int, float] = {}  # by node; an alias is the node that it names

    def size(node: yaml.Node) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = math.inf  # until it is known: of a node within itself
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
    """One line for a name that does not exist, with the nearest that does."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}; {hint}"


def _typed(cls: type[Any], name: str, value: Any) -> Any:
    """Checks a value against its field's type: YAML, tables and command lines deliver anything."""
    if type(value).__module__ == "numpy":
        value = value.item()
    hints = typing.get_type_hints(cls)
    _require(name in hints, unknown("setting", name, hints))
    expected = hints[name]
    if typing.get_origin(expected) is types.UnionType:  # a number or None
        if value is None:
            return None
        expected = typing.get_args(expected)[0]
    if typing.get_origin(expected) is tuple:  # of words; tables hold them as one text
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


# The paper's protocol, as far as it says: the weights are random, nothing is taught and no term is added to the ELBO.
# A preset's corpus, features, likelihood, beta, d and epochs stay: the paper leaves them open, or the corpus decides.
PAPER_METHOD = "cat_uvac_paper"  # what tables call a Cat. UVAC that was trained by it
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

# A spoken digit: the active part stretched to a fixed length with per-clip mean and variance follows the digit best
# (design, section 3); the paper's AudioMNIST preset pads and does not normalise.
_DIGITS = {
    "sample_rate": 8000,
    "window": 256,
    "hop": 80,
    "n_bands": 64,
    "time_fit": "stretch",
    "stretch_frames": 32,
    "clip_norm": "mean_var",
}
_WORDS = {**_DIGITS, "sample_rate": 16000, "window": 512, "hop": 160}  # as long, at the corpora's own rate

# What the paper leaves open, and a start and a term of ours. The likelihood is Gaussian, with a sigma at which ten
# dimensions of z pay (0 computes it), as in UVAC. beta is small, as in the paper. From random weights the ELBO alone
# merges clusters, so q(y|x) first learns by balanced invariance (SwAV's swapped assignment), and the term stays beside
# the ELBO: at a weight of 10 FSDD's q(y|x) was drawn away from its start, at 20 it was not (studies/cold-start.md). All
# of it was settled on generated scenes and on label-free scores. The balance is over a batch, which has to hold
# ten clips of each cluster: at six, generated scenes merge. Beyond that, more steps an epoch help more than more clips
# a step: 128. Adam's usual 1e-3 falls to a tenth so that the last epochs settle.
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
# Recordings from the field, and whatever is in a folder: the gentlest views. On UrbanSound8K two seeds agree most with
# them, and most information survives every set of views; circular shifts hurt clips that are padded.
_FIELD = {**_OPEN["training"], "views": "speech", "view_strength": 0.3}
_SHORT = {"epochs": 120, "warmup_share": 0.75, "n_init": 3}  # few clips: the start needs its 72 epochs of 18 steps

# The paper's scene features: 16 kHz, STFT 960 Hann 50 %, 128 mel bands, mean and variance, min-max to [0, 1].
_SCENES = {"sample_rate": 16000, "window": 960, "hop": 480, "n_bands": 128, "corpus_norm": "mean_var"}

_TAU2019 = Config.from_dict(
    {
        **_OPEN,
        # The paper used 1 200 files and does not say which: as many of every scene, drawn with corpus_seed.
        "corpus": {"corpus": "tau2019", "limit": 1200, "stratify": True},
        "features": {**_SCENES, "clip_seconds": 10.0},
        # Segments of one recording sound alike: all of a location lie on one side of the split.
        "split": {"split": "grouped", "group": "location"},
        "training": _FIELD,
    }
)
_URBANSOUND8K = Config.from_dict(
    {
        **_OPEN,
        "corpus": {"corpus": "urbansound8k"},
        # Zero-padded to 4 s; what is padded or silent is masked out of the reconstruction error.
        "features": {**_SCENES, "clip_seconds": 4.0},
        # Slices of one field recording (fsID) lie on one side of the split.
        "split": {"split": "grouped", "group": "fs_id"},
        "training": _FIELD,
    }
)

PRESETS: dict[str, Config] = {
    # Five generated scenes, one second each; half a minute.
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
            # Twice as long as the others: the views then share more (0.82 of log K against 0.79, five seeds each).
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
    # The ten words that serve as commands by convention, of about as many clips each (3 723 to 4 044): balanced
    # invariance asks for clusters of one size. Features and start are those of the Arabic digits, which are single
    # words at the same rate too. The lists keep a speaker on one side. Four fifths of the 38 546 clips train, 240 steps
    # an epoch, so that 120 epochs are thirteen times the steps that FSDD's have.
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
    # It names neither rate nor bins: 16 kHz, and the 128 bins above 0 Hz of a 32 ms window, up to 4 kHz, where the
    # formants lie; what is above tells fricatives and microphones apart.
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
    # Any tree of audio files: the scene front end over two seconds.
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
    """Returns a preset; raises `ConfigError` naming the nearest known one."""
    _require(name in PRESETS, unknown("preset", name, PRESETS))
    return PRESETS[name]
