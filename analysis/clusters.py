"""What the clusters of a trained model are: which columns they follow, how they lie, what they look and sound like."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.metrics.cluster import expected_mutual_information

from analysis.figures import clusters as draw
from analysis.section import Clip, Group, Section, Statement, Table, slug
from analysis.stats.bootstrap import RESAMPLES, interval, resampled
from catuvac.evaluation.metrics import active_units

if TYPE_CHECKING:
    from catuvac.trained import Trained

MAX_VALUES = 30  # a column of more values has its NMI shown, and no heat map
MANY_CLUSTERS = 14  # more need the page's width
MAP_CLIPS = 4000  # a seeded draw of more clips: UMAP of 24 000 would take minutes
UMAP_NEIGHBOURS = 15  # umap-learn's default
CLIP_SECONDS = 4.0
LOW_RATE = 8000  # Hz, where the clips would not fit at their own rate
DETAILS = 4  # columns that are said of a clip to play
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


def section(model: Trained, *, audio_bytes: int = 1_500_000) -> Section:
    """Everything about one model on one split.

    Args:
        model: opened by `catuvac.trained`.
        audio_bytes: of all WAV files together, at most.
    """
    name = f"clusters/{slug(model.name, model.split)}"
    title = f"What the clusters are: {model.name}, {model.split} split"
    clips = model.clips
    if clips.empty:
        return Section(title, (Statement(f"{name}/none", "The split holds no clip, so there is nothing to show."),))
    logits, z, clusters, prototypes = model.logits, model.z, model.clusters, model.prototypes
    if not all(np.isfinite(output).all() for output in (logits, z, prototypes)):
        why = "The model's outputs are not finite: it diverged and has no clusters to show."
        return Section(title, (Statement(f"{name}/none", why),))

    columns = clip_columns(clips)
    label = columns.get("label")
    statements = [_used(name, clusters, k=logits.shape[1])]
    parts: list[Group | Table | Clip] = []
    if columns:
        found = agreement(clusters, columns)
        statements.append(_follows(name, model.name, clusters, found))
        parts += [*_agreement_parts(name, found, len(clips)), _confusions(name, clusters, columns)]
    else:
        parts.append(Group("What the clusters follow: the clips have no labels and no other columns to compare with."))
    if label is not None:
        statements.append(_matched(name, clusters, label))
    examples = [*medoids(logits, clusters), *borderlines(model.probabilities, clusters)]
    parts += [
        _maps(name, {"z": z, "logits": logits}, clusters, label),
        _pictures(name, pictures(model.x, clusters, prototypes, label)),
        *playable(model, examples, columns, audio_bytes),
    ]
    return Section(title, tuple(statements), tuple(parts), tuple(each.name for each in statements[1:2]))


def clip_columns(clips: pd.DataFrame) -> dict[str, Values]:
    """The label, where there is one, then every nuisance column, each with its values in order."""
    from catuvac.data.corpora.table import COMMON  # here, because it imports torch

    names = ["label", *(str(name) for name in clips.columns if name not in COMMON)]
    return {name: _categories(clips[name]) for name in names if name in clips and clips[name].notna().any()}


def _categories(values: pd.Series) -> Values:
    names = [str(value) for value in sorted(values.dropna().unique())] + [NULL] * bool(values.isna().any())
    return pd.Categorical([NULL if pd.isna(value) else str(value) for value in values], list(dict.fromkeys(names)))


def _used(name: str, clusters: Ints, *, k: int) -> Statement:
    sizes = np.bincount(clusters, minlength=k)
    return Statement(
        f"{name}/used",
        "{used} of {k} clusters hold the {n} clips; the largest holds {largest:.0%} of them.",
        {"used": int((sizes > 0).sum()), "k": k, "n": len(clusters), "largest": float(sizes.max() / sizes.sum())},
    )


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


def _follows(name: str, model: str, clusters: Ints, found: Agreement) -> Statement:
    """The label against the strongest nuisance column, or the one of them that there is."""
    name, scores, beyond = f"{name}/follows", found.scores.to_dict("index"), found.beyond_chance
    if len(np.unique(clusters)) == 1:
        return Statement(name, "One cluster holds every clip, so it follows no column: every NMI is {nmi}.", {"nmi": 0})
    nuisances = beyond.drop("label", errors="ignore")
    strongest = str(nuisances.idxmax()) if len(nuisances) else "label"
    if strongest == "label" or "label" not in scores:
        return Statement(
            name,
            "{model}: the clusters have an NMI of {nmi:.2f} with the {column} (95 % interval {low:.2f} to {high:.2f}); "
            "shuffled clusters would reach {chance:.2f}.",
            {
                "model": model,
                "column": strongest,
                **{score: scores[strongest][score] for score in ("nmi", "low", "high", "chance")},
            },
        )
    difference, low, high = found.difference("label", strongest)
    first, second = ("label", strongest) if difference >= 0 else (strongest, "label")
    return Statement(
        name,
        "{model}: the clusters follow the {first} (NMI {nmi_first:.2f}) "
        + ("more than" if low > 0 or high < 0 else "no more clearly than")
        + " the {second} (NMI {nmi_second:.2f}). Beyond what shuffled clusters would reach ({chance_first:.2f} and "
        "{chance_second:.2f}), label less {nuisance} is {difference:+.2f} (95 % interval {low:+.2f} to {high:+.2f}).",
        {
            "model": model,
            "first": first,
            "second": second,
            "nuisance": strongest,
            **{f"{score}_first": scores[first][score] for score in ("nmi", "chance")},
            **{f"{score}_second": scores[second][score] for score in ("nmi", "chance")},
            "difference": difference,
            "low": low,
            "high": high,
        },
    )


def _matched(name: str, clusters: Ints, label: Values) -> Statement:
    counts = confusion(clusters, label).to_numpy()
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return Statement(
        f"{name}/matched",
        "Matched one to one, clusters and labels agree on {acc:.0%} of the clips (clusters used: {used}, labels: "
        "{labels}).",
        {"used": counts.shape[0], "labels": counts.shape[1], "acc": float(counts[rows, columns].sum() / counts.sum())},
    )


def _agreement_parts(name: str, found: Agreement, n: int) -> tuple[Group, Table]:
    caption = (
        f"NMI of the clusters with each column of the {n} clips. Bars: 95 % bootstrap interval over clips ({RESAMPLES} "
        "samples, centred on the value). Crosses: what shuffled clusters would reach, which grows with the number of "
        "values; with few clips every NMI is too high by up to as much."
        + ("" if "label" in found.scores.index else " There are no labels.")
    )
    rows = tuple(
        (str(column), f"{values}", f"{nmi:.2f}", f"{low:.2f} to {high:.2f}", f"{chance:.2f}")
        for column, values, nmi, low, high, chance in found.scores.itertuples()
    )
    titles = ("column", "values", "NMI", "95 % interval", "shuffled")
    drawing = draw.agreement(found, name=slug(name, "nmi"))
    return Group(caption, (drawing,)), Table(f"The same NMI in numbers ({n} clips).", titles, rows)


def _confusions(name: str, clusters: Ints, columns: Columns) -> Group:
    order = cluster_order(clusters, columns.get("label"))
    tables = [
        Confusion(column, confusion(clusters, values).loc[order])
        for column, values in columns.items()
        if 2 <= len(values.categories) <= MAX_VALUES
    ]
    order_said = "the order of the labels matched to them one to one" if "label" in columns else "their own order"
    caption = (
        f"The {len(clusters)} clips by cluster and column. Numbers count clips; the shade is their share of the "
        f"cluster, so that every cluster sums to one. Clusters stand in {order_said}; empty ones are left out."
    )
    drawn = {table.column for table in tables}
    left = [f"{column} (values: {len(v.categories)})" for column, v in columns.items() if column not in drawn]
    caption += f" Not drawn: {', '.join(left)}." if left else ""
    drawings = [draw.confusion(table, name=slug(name, "by", table.column)) for table in tables]
    return Group(caption, tuple(drawings), wide=len(order) > MANY_CLUSTERS)


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


def _maps(name: str, spaces: Mapping[str, Floats], clusters: Ints, label: Values | None) -> Group:
    n, d = spaces["z"].shape
    colours = {"cluster": _categories(pd.Series(clusters))} | ({} if label is None else {"label": label})
    maps = [project(space, points, method=method) for space, points in spaces.items() for method in ("PCA", "UMAP")]
    drawings = [
        draw.scatter(found, values[found.rows], by=by, name=slug(name, found.method, found.space, by))
        for found in maps
        if not found.reason
        for by, values in colours.items()
    ]
    drawn = f", of which {MAP_CLIPS} are drawn" if n > MAP_CLIPS else ""
    by = "by cluster (no labels)" if label is None else "by cluster and by label"
    caption = (
        f"A point per clip ({n} clips{drawn}), {by}: the posterior mean z (d = {d}, units active: "
        f"{active_units(spaces['z'])}) and the logits, whose largest is the cluster. PCA takes the values as they are; "
        "its axes carry their share of the variance."
    )
    if any(found.method == "UMAP" and not found.reason for found in maps):
        caption += " UMAP keeps neighbours together; its distances mean little."
    missing: dict[tuple[str, str], list[str]] = {}
    for found in maps:
        if found.reason:
            missing.setdefault((found.method, found.reason), []).append(found.space)
    caption += "".join(f" No {method} of {' and '.join(of)}: {why}." for (method, why), of in missing.items())
    return Group(caption, tuple(drawings))


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


def _pictures(name: str, found: Sequence[Picture]) -> Group:
    seen = [picture.prototype for picture in found] + [picture.mean for picture in found if picture.mean is not None]
    low, high = float(min(map(np.min, seen))), float(max(map(np.max, seen)))
    caption = (
        "For each cluster, the mean of its clips' features, and its prototype: what the decoder draws for it at the "
        "prior's mean of z. Time runs to the right in frames, frequency bands run upwards; one colour scale over all, "
        f"from {low:.2f} (dark) to {high:.2f} (bright)."
    )
    if any(picture.mean is None for picture in found):
        caption += " An empty cluster has a prototype alone."
    file = slug(name, "cluster")
    drawings = [draw.picture(picture, low=low, high=high, name=f"{file}-{picture.cluster}") for picture in found]
    return Group(caption, tuple(drawings))


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


def playable(model: Trained, examples: Sequence[Example], columns: Columns, audio_bytes: int) -> list[Group | Clip]:
    """As many of the examples as `audio_bytes` allow, medoids first, with a caption before them."""
    sounds = [(example, sound) for example in examples if (sound := model.audio(example.clip)) is not None]
    wavs = [wav(samples, rate) for _, (samples, rate) in sounds]
    lowered = sum(map(len, wavs)) > audio_bytes
    if lowered:
        wavs = [wav(samples, rate, at_most=LOW_RATE) for _, (samples, rate) in sounds]
    kept = int((np.cumsum([len(data) for data in wavs]) <= audio_bytes).sum())
    caption = (
        "To listen to: of each cluster the medoid, the clip nearest the cluster's mean in the space of the logits, and "
        "a borderline clip, the one whose two largest probabilities are closest. "
        f"16-bit mono, at most the first {CLIP_SECONDS:g} s"
    )
    caption += f", resampled to {LOW_RATE} Hz to save room." if lowered else "."
    if len(sounds) < len(examples):
        caption += f" {len(examples) - len(sounds)} of the {len(examples)} recordings cannot be opened."
    if kept < len(wavs):
        caption += f" {len(wavs) - kept} more would not fit into {audio_bytes / 1e6:.3g} MB and are left out."
    clips = [
        (example, Clip(f"cluster {example.cluster}, {example.kind}", _detail(example, columns), data))
        for (example, _), data in zip(sounds[:kept], wavs[:kept], strict=True)
    ]
    clips.sort(key=lambda pair: pair[0].cluster)  # stable: the medoid stays first
    return [Group(caption), *(clip for _, clip in clips)]


def _detail(example: Example, columns: Columns) -> str:
    facts = [f"{name} {values[example.clip]}" for name, values in list(columns.items())[:DETAILS]]
    return "; ".join(filter(None, [example.detail, ", ".join(facts)]))


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
