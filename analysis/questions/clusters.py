"""What the clusters of a trained model represent: the columns they match, maps, mean features and example clips."""

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

MAP_CLIPS = 4000  # a seeded random subset of more clips is used: UMAP of 24 000 would take minutes
UMAP_NEIGHBOURS = 15  # umap-learn's default
CLIP_SECONDS = 4.0
LOW_RATE = 8000  # Hz, used if the clips would not fit at their original rate
NULL = "unknown"  # the category of clips whose column is null

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Values: TypeAlias = "pd.Categorical[str]"  # the values of a column, one per clip
Columns: TypeAlias = Mapping[str, Values]


@dataclass(frozen=True)
class Confusion:
    """Clips by used cluster and by the value of a column.

    Attributes:
        column: of the clip table.
        counts: one row per used cluster, in the order of the figure; one column per value.
    """

    column: str
    counts: pd.DataFrame

    @property
    def shares(self) -> pd.DataFrame:
        """The shares of each cluster's clips; rows sum to 1."""
        return self.counts.div(self.counts.sum(axis=1), axis=0)


@dataclass(frozen=True)
class Agreement:
    """How much information the clusters contain about each column.

    Attributes:
        scores: one row per column of the clip table: values (their number), nmi, low and high (95 % bootstrap interval
            over clips), chance (the expected NMI of shuffled clusters, which grows with the number of values).
        deviations: `[RESAMPLES, columns]`, NMI of each bootstrap sample minus the mean of all samples.
    """

    scores: pd.DataFrame
    deviations: NDArray[np.float64]

    @property
    def beyond_chance(self) -> pd.Series[float]:
        """NMI minus that of shuffled clusters, which is comparable between columns with few and with many values."""
        return self.scores["nmi"] - self.scores["chance"]

    def difference(self, a: str, b: str) -> tuple[float, float, float]:
        """Returns NMI beyond chance with column `a` minus that with `b`, and its 95 % interval."""
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
        rows: `[m]` row numbers of the clips.
        points: `[m, 2]`.
        shares: of the variance, per axis; empty for UMAP.
        reason: why there are no points; "" if there are.
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
        n: number of clips.
        most: its most frequent label, such as "mostly seven" or "most often seven, 24 %"; "" if there is none.
        mean: of its clips; None for an empty cluster.
        prototype: the decoder's output for it.
    """

    cluster: int
    n: int
    most: str
    mean: Floats | None
    prototype: Floats


@dataclass(frozen=True)
class Example:
    """Clip number `clip`, which represents its cluster ("medoid") or nearly belongs to another ("borderline")."""

    cluster: int
    kind: str
    clip: int
    detail: str = ""


def clip_columns(clips: pd.DataFrame) -> dict[str, Values]:
    """Returns the label, if there is one, then every nuisance column, each with its values in order."""
    from catuvac.data.corpora.table import COMMON  # imported here, because it imports torch

    names = ["label", *(str(name) for name in clips.columns if name not in COMMON)]
    return {name: categories(clips[name]) for name in names if name in clips and clips[name].notna().any()}


def categories(values: pd.Series) -> Values:
    """Converts a column `[n]` to strings with ordered categories, of which `NULL` for null is the last."""
    names = [str(value) for value in sorted(values.dropna().unique())] + [NULL] * bool(values.isna().any())
    return pd.Categorical([NULL if pd.isna(value) else str(value) for value in values], list(dict.fromkeys(names)))


# Which columns they match


def confusion(clusters: Ints, values: Values) -> pd.DataFrame:
    """Counts clips: one row per used cluster by number, one column per value that occurs, in order."""
    return pd.crosstab(clusters, values, rownames=["cluster"], colnames=["value"])


def cluster_order(clusters: Ints, label: Values | None) -> list[int]:
    """Orders the used clusters by their label in the one-to-one (Hungarian) matching; unmatched clusters come last."""
    used = [int(cluster) for cluster in np.unique(clusters)]
    if label is None:
        return used
    rows, columns = linear_sum_assignment(confusion(clusters, label), maximize=True)
    matched = [used[row] for row in rows[np.argsort(columns)]]
    return matched + [cluster for cluster in used if cluster not in matched]


def matched(counts: pd.DataFrame) -> float:
    """Returns the share of clips on which clusters and labels, matched one to one, agree; `counts`: of `confusion`."""
    table = counts.to_numpy()
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def agreement(clusters: Ints, columns: Columns, *, seed: int = 0) -> Agreement:
    """Computes the NMI of the clusters with each column (arithmetic mean), its interval, and its chance level.

    Resampling repeats clips, which raises every NMI, so the interval uses the spread of the bootstrap samples and not
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
    """Divides mutual information (of the tables `[…, values, K]`, unless given) by the mean entropy of both sides.

    0 if one side is constant.
    """
    values, clusters = entropy(counts.sum(axis=-1), axis=-1), entropy(counts.sum(axis=-2), axis=-1)
    if information is None:
        information = values + clusters - entropy(counts.reshape(*counts.shape[:-2], -1), axis=-1)
    mean = (values + clusters) / 2
    nmi = np.maximum(0.0, information) / np.where(mean > 0, mean, 1.0)
    return np.where(np.minimum(values, clusters) > 0, nmi, 0.0)


# Maps


def project(space: str, points: Floats, *, method: str, seed: int = 0) -> Map:
    """Projects to the first two principal components ("PCA"), or by "UMAP" if umap-learn is installed."""
    n = len(points)
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:MAP_CLIPS])
    chosen = points[rows].astype(np.float64)
    why = ""
    if chosen.shape[1] < 2:
        why = "it has one dimension"
    elif (chosen == chosen[0]).all():
        why = "it is the same for every clip"
    elif method == "UMAP" and len(chosen) <= UMAP_NEIGHBOURS:
        why = f"it needs more than {UMAP_NEIGHBOURS} clips"
    if why:
        return Map(space, method, rows, np.zeros((0, 2)), reason=why)
    if method == "PCA":
        fitted = PCA(2, svd_solver="full")
        drawn = fitted.fit_transform(chosen)
        return Map(space, method, rows, drawn, tuple(map(float, fitted.explained_variance_ratio_)))
    try:
        library = import_module("umap")
    except ImportError:
        return Map(space, method, rows, np.zeros((0, 2)), reason="install it with pip install umap-learn")
    fitted = library.UMAP(n_neighbors=UMAP_NEIGHBOURS, random_state=seed, n_jobs=1)
    return Map(space, method, rows, np.asarray(fitted.fit_transform(chosen), dtype=np.float64))


# What they look like


def pictures(x: Floats, clusters: Ints, prototypes: Floats, label: Values | None) -> list[Picture]:
    """Returns the pictures of all K clusters, including empty ones.

    Args:
        x: features `[n, T, F]`.
        clusters: `[n]`.
        prototypes: `[K, T, F]`.
        label: `[n]`; None if there are no labels.
    """
    drawn = []
    for cluster, prototype in enumerate(prototypes):
        members = clusters == cluster
        n = int(members.sum())
        most = "" if label is None or n == 0 else _most(label[members])
        drawn.append(Picture(cluster, n, most, x[members].mean(axis=0) if n else None, prototype))
    return drawn


def _most(label: Values) -> str:
    shares = label.value_counts() / len(label)
    share = float(shares.max())
    return f"mostly {shares.idxmax()}" if share > 0.5 else f"most often {shares.idxmax()}, {share:.0%}"


# What they sound like


def medoids(logits: Floats, clusters: Ints) -> list[Example]:
    """Returns for each used cluster the clip nearest to the cluster's mean logits."""
    examples = []
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        distances = np.linalg.norm(logits[members] - logits[members].mean(axis=0), axis=1)
        examples.append(Example(int(cluster), "medoid", int(members[distances.argmin()])))
    return examples


def borderlines(probabilities: Floats, clusters: Ints) -> list[Example]:
    """Returns for each used cluster the clip whose two largest probabilities are closest."""
    rows = np.arange(len(clusters))
    others = probabilities.copy()
    others[rows, clusters] = -1.0
    top, next_, rivals = probabilities[rows, clusters], others.max(axis=1), others.argmax(axis=1)
    examples = []
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        clip = int(members[(top - next_)[members].argmin()])
        between = f"between cluster {cluster} and {rivals[clip]} ({top[clip]:.2f} / {next_[clip]:.2f})"
        examples.append(Example(int(cluster), "borderline", clip, between))
    return examples


def wav(samples: Floats, rate: int, *, at_most: int | None = None) -> bytes:
    """Encodes the first `CLIP_SECONDS` as a 16-bit WAV file at `rate`, or `at_most`, Hz; peaks beyond 1 are clipped."""
    samples = samples[: round(CLIP_SECONDS * rate)]
    if at_most is not None and rate > at_most:
        import torch  # imported here, because the analysis of tables does not need it

        from catuvac.data.audio import resample

        samples, rate = resample(torch.from_numpy(samples), rate=rate, to=at_most).numpy(), at_most
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
