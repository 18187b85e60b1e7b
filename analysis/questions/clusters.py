"""What the clusters of a trained model are: which columns they follow, how they lie, what they look and sound like."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TypeAlias

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.metrics.cluster import expected_mutual_information

from analysis.stats.bootstrap import RESAMPLES, interval, resampled

MAP_CLIPS = 4000  # a seeded draw of more clips: UMAP of 24 000 would take minutes
UMAP_NEIGHBOURS = 15  # umap-learn's default
CLIP_SECONDS = 4.0
LOW_RATE = 8000  # Hz, where the clips would not fit at their own rate
NULL = "unknown"  # a clip whose column is null

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Values: TypeAlias = "pd.Categorical[str]"  # of a column, one per clip
Columns: TypeAlias = Mapping[str, Values]


@dataclass(frozen=True)
class Confusion:
    """Clips by used cluster and by the value of a column.

    Attributes:
        column: of the clip table.
        counts: a row per used cluster, in the order of the picture; a column per value.
    """

    column: str
    counts: pd.DataFrame

    @property
    def shares(self) -> pd.DataFrame:
        """Of each cluster's clips: rows sum to 1."""
        return self.counts.div(self.counts.sum(axis=1), axis=0)


@dataclass(frozen=True)
class Agreement:
    """How much the clusters say about each column.

    Attributes:
        scores: a row per column of the clip table: values (how many), nmi, low and high (95 % bootstrap interval over
            clips), chance (the NMI expected of shuffled clusters, which grows with the number of values).
        deviations: `[RESAMPLES, columns]`, NMI of each bootstrap sample less the mean of all samples.
    """

    scores: pd.DataFrame
    deviations: NDArray[np.float64]

    @property
    def beyond_chance(self) -> pd.Series[float]:
        """NMI less what shuffled clusters reach: comparable between columns of few and of many values."""
        return self.scores["nmi"] - self.scores["chance"]

    def difference(self, a: str, b: str) -> tuple[float, float, float]:
        """NMI beyond chance with column `a` less that with `b`, and its 95 % interval."""
        names = list(self.scores.index)
        value = float(self.beyond_chance[a] - self.beyond_chance[b])
        low, high = value + interval(self.deviations[:, names.index(a)] - self.deviations[:, names.index(b)])
        return value, float(low), float(high)


@dataclass(frozen=True)
class Map:
    """Clips in two dimensions.

    Attributes:
        space: "z" or "logits".
        method: "PCA" or "UMAP".
        rows: `[m]` numbers of the clips.
        points: `[m, 2]`.
        shares: of the variance, on each axis; empty for UMAP.
        reason: why there are no points.
    """

    space: str
    method: str
    rows: Ints
    points: NDArray[np.float64]
    shares: tuple[float, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Picture:
    """A cluster's mean features and its prototype, both `[T, F]`.

    Attributes:
        cluster: its number.
        n: clips.
        most: its most frequent label, such as "mostly seven" or "most often seven, 24 %"; "" where there is none.
        mean: of its clips; None for an empty cluster.
        prototype: what the decoder draws for it.
    """

    cluster: int
    n: int
    most: str
    mean: Floats | None
    prototype: Floats


@dataclass(frozen=True)
class Example:
    """Clip number `clip`, which stands for its cluster ("medoid") or nearly belongs to another ("borderline")."""

    cluster: int
    kind: str
    clip: int
    detail: str = ""


def clip_columns(clips: pd.DataFrame) -> dict[str, Values]:
    """The label, where there is one, then every nuisance column, each with its values in order."""
    from catuvac.data.corpora.table import COMMON  # here, because it imports torch

    names = ["label", *(str(name) for name in clips.columns if name not in COMMON)]
    return {name: categories(clips[name]) for name in names if name in clips and clips[name].notna().any()}


def categories(values: pd.Series) -> Values:
    """A column `[n]` as words, with its values in order, and null as `NULL`, the last."""
    names = [str(value) for value in sorted(values.dropna().unique())] + [NULL] * bool(values.isna().any())
    return pd.Categorical([NULL if pd.isna(value) else str(value) for value in values], list(dict.fromkeys(names)))


# What they follow


def confusion(clusters: Ints, values: Values) -> pd.DataFrame:
    """Counts of clips: a row per used cluster by number, a column per value that occurs, in order."""
    return pd.crosstab(clusters, values, rownames=["cluster"], colnames=["value"])


def cluster_order(clusters: Ints, label: Values | None) -> list[int]:
    """Used clusters by the label matched to them one to one (Hungarian), then those that no label is left for."""
    used = [int(cluster) for cluster in np.unique(clusters)]
    if label is None:
        return used
    rows, columns = linear_sum_assignment(confusion(clusters, label), maximize=True)
    matched = [used[row] for row in rows[np.argsort(columns)]]
    return matched + [cluster for cluster in used if cluster not in matched]


def matched(counts: pd.DataFrame) -> float:
    """Share of the clips on which clusters and labels agree, matched one to one; `counts` are of `confusion`."""
    table = counts.to_numpy()
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def agreement(clusters: Ints, columns: Columns, *, seed: int = 0) -> Agreement:
    """NMI of the clusters with each column (arithmetic mean), its interval, and its chance level.

    Resampling repeats clips, which raises every NMI, so the interval takes the spread of the bootstrap samples and not
    their level.
    """
    n, codes = len(clusters), np.unique(clusters, return_inverse=True)[1]
    k = int(codes.max()) + 1
    rows = np.stack(resampled(np.arange(n), rng=np.random.default_rng(seed)))  # [RESAMPLES, n]
    scores, deviations = {}, []
    for name, values in columns.items():
        cells, shape = values.codes.astype(np.int64) * k + codes, (len(values.categories), k)
        size = math.prod(shape)
        counts = np.bincount(cells, minlength=size).reshape(shape)
        samples = cells[rows] + size * np.arange(RESAMPLES)[:, None]  # tables of all samples, one after another
        of_samples = _nmi(np.bincount(samples.ravel(), minlength=RESAMPLES * size).reshape(-1, *shape))
        deviations.append(of_samples - of_samples.mean())
        nmi, chance = float(_nmi(counts)), float(_nmi(counts, information=expected_mutual_information(counts, n)))
        low, high = np.clip(nmi + interval(deviations[-1]), 0.0, 1.0)
        scores[name] = {"values": shape[0], "nmi": nmi, "low": low, "high": high, "chance": chance}
    return Agreement(pd.DataFrame.from_dict(scores, orient="index"), np.stack(deviations, axis=1))


def _nmi(counts: Ints, *, information: float | None = None) -> NDArray[np.float64]:
    """Mutual information (of the tables `[…, values, K]`, unless given) over the mean entropy of their two sides.

    0 where one side is constant.
    """
    values, clusters = entropy(counts.sum(axis=-1), axis=-1), entropy(counts.sum(axis=-2), axis=-1)
    if information is None:
        information = values + clusters - entropy(counts.reshape(*counts.shape[:-2], -1), axis=-1)
    mean = (values + clusters) / 2
    found = np.maximum(0.0, information) / np.where(mean > 0, mean, 1.0)
    return np.where(np.minimum(values, clusters) > 0, found, 0.0)


# How they lie


def project(space: str, points: Floats, *, method: str, seed: int = 0) -> Map:
    """The first two principal components ("PCA"), or "UMAP" where umap-learn is installed."""
    n = len(points)
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:MAP_CLIPS])
    chosen = points[rows].astype(np.float64)
    why = ""
    if chosen.shape[1] < 2:
        why = "it has one dimension"
    elif (chosen == chosen[0]).all():
        why = "it is the same for every clip"
    elif method == "UMAP" and len(chosen) <= UMAP_NEIGHBOURS:
        why = f"it takes more than {UMAP_NEIGHBOURS} clips"
    if why:
        return Map(space, method, rows, np.zeros((0, 2)), reason=why)
    if method == "PCA":
        fitted = PCA(2, svd_solver="full")
        drawn = fitted.fit_transform(chosen)
        return Map(space, method, rows, drawn, tuple(map(float, fitted.explained_variance_ratio_)))
    try:
        library = import_module("umap")
    except ImportError:
        return Map(space, method, rows, np.zeros((0, 2)), reason="pip install umap-learn adds it")
    fitted = library.UMAP(n_neighbors=UMAP_NEIGHBOURS, random_state=seed, n_jobs=1)
    return Map(space, method, rows, np.asarray(fitted.fit_transform(chosen), dtype=np.float64))


# What they look like


def pictures(x: Floats, clusters: Ints, prototypes: Floats, label: Values | None) -> list[Picture]:
    """Of all K clusters, empty ones too.

    Args:
        x: features `[n, T, F]`.
        clusters: `[n]`.
        prototypes: `[K, T, F]`.
        label: `[n]`, None where there are none.
    """
    found = []
    for cluster, prototype in enumerate(prototypes):
        mine = clusters == cluster
        n = int(mine.sum())
        most = "" if label is None or n == 0 else _most(label[mine])
        found.append(Picture(cluster, n, most, x[mine].mean(axis=0) if n else None, prototype))
    return found


def _most(label: Values) -> str:
    shares = label.value_counts() / len(label)
    share = float(shares.max())
    return f"mostly {shares.idxmax()}" if share > 0.5 else f"most often {shares.idxmax()}, {share:.0%}"


# What they sound like


def medoids(logits: Floats, clusters: Ints) -> list[Example]:
    """Of each used cluster, the clip nearest its mean in the space of the logits."""
    found = []
    for cluster in np.unique(clusters):
        mine = np.flatnonzero(clusters == cluster)
        distances = np.linalg.norm(logits[mine] - logits[mine].mean(axis=0), axis=1)
        found.append(Example(int(cluster), "medoid", int(mine[distances.argmin()])))
    return found


def borderlines(probabilities: Floats, clusters: Ints) -> list[Example]:
    """Of each used cluster, the clip whose two largest probabilities are closest."""
    rows = np.arange(len(clusters))
    others = probabilities.copy()
    others[rows, clusters] = -1.0
    top, next_, rivals = probabilities[rows, clusters], others.max(axis=1), others.argmax(axis=1)
    found = []
    for cluster in np.unique(clusters):
        mine = np.flatnonzero(clusters == cluster)
        clip = int(mine[(top - next_)[mine].argmin()])
        between = f"between cluster {cluster} and {rivals[clip]} ({top[clip]:.2f} / {next_[clip]:.2f})"
        found.append(Example(int(cluster), "borderline", clip, between))
    return found


def wav(samples: Floats, rate: int, *, at_most: int | None = None) -> bytes:
    """The first `CLIP_SECONDS` as a 16-bit WAV file at `rate`, or `at_most`, Hz; peaks beyond 1 are clipped."""
    samples = samples[: round(CLIP_SECONDS * rate)]
    if at_most is not None and rate > at_most:
        import torch  # here: the analysis of tables does without

        from catuvac.data.audio import resample

        samples, rate = resample(torch.from_numpy(samples), rate=rate, to=at_most).numpy(), at_most
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
