"""What the clusters of a trained model represent, in words, figures and sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.figures import clusters as figures
from analysis.questions.clusters import (
    CLIP_SECONDS,
    LOW_RATE,
    MAP_CLIPS,
    Agreement,
    Columns,
    Confusion,
    Example,
    Floats,
    Ints,
    Picture,
    Values,
    agreement,
    borderlines,
    categories,
    clip_columns,
    cluster_order,
    confusion,
    matched,
    medoids,
    pictures,
    project,
    wav,
)
from analysis.section import Clip, Group, Section, Statement, Table, slug
from analysis.stats.bootstrap import RESAMPLES
from catuvac.evaluation.metrics import active_units

if TYPE_CHECKING:
    from catuvac.trained import Trained

MAX_VALUES = 30  # columns with more distinct values get an NMI but no heat map
MANY_CLUSTERS = 14  # with more clusters, a heat map spans the page
DETAILS = 4  # columns that are listed with a playable clip


def section(model: Trained, *, audio_bytes: int = 1_500_000) -> Section:
    """Builds the section on one model on one split.

    Args:
        model: opened by `catuvac.trained`.
        audio_bytes: the most bytes that all WAV files may take together.
    """
    name = f"clusters/{slug(model.name, model.split)}"
    title = f"What the clusters represent: {model.name}, {model.split} split"
    clips = model.clips
    if clips.empty:
        return Section(title, (Statement(f"{name}/none", "The split contains no clip, so there is nothing to show."),))
    logits, z, clusters, prototypes = model.logits, model.z, model.clusters, model.prototypes
    if not all(np.isfinite(output).all() for output in (logits, z, prototypes)):
        why = "The model's outputs are not finite: it diverged and has no clusters to show."
        return Section(title, (Statement(f"{name}/none", why),))

    columns = clip_columns(clips)
    label = columns.get("label")
    statements = [_used(name, clusters, k=logits.shape[1])]
    parts: list[Group | Table | Clip] = []
    if columns:
        scores = agreement(clusters, columns)
        statements.append(_follows(name, model.name, clusters, scores))
        parts += [*_agreement_parts(name, scores, len(clips)), _confusions(name, clusters, columns)]
    else:
        parts.append(Group("The clips have no labels and no other columns to compare the clusters with."))
    if label is not None:
        statements.append(_matched(name, clusters, label))
    examples = [*medoids(logits, clusters), *borderlines(model.probabilities, clusters)]
    parts += [
        _maps(name, {"z": z, "logits": logits}, clusters, label),
        _pictures(name, pictures(model.x, clusters, prototypes, label)),
        *playable(model, examples, columns, audio_bytes),
    ]
    return Section(title, tuple(statements), tuple(parts), tuple(statement.name for statement in statements[1:2]))


def absent(why: str) -> Section:
    """Builds the section for the case that no model can be shown.

    Args:
        why: such as "no trial has left a checkpoint".
    """
    caption = f"Nothing to show: {why}. --trained DIR shows a run of `catuvac train --config best.yaml --out DIR`."
    return Section("What the clusters represent", (), (Group(caption),))


def _used(name: str, clusters: Ints, *, k: int) -> Statement:
    sizes = np.bincount(clusters, minlength=k)
    return Statement(
        f"{name}/used",
        "The {n} clips are in {used} of {k} clusters; the largest contains {largest:.0%} of them.",
        {"used": int((sizes > 0).sum()), "k": k, "n": len(clusters), "largest": float(sizes.max() / sizes.sum())},
    )


def _follows(name: str, model: str, clusters: Ints, agreed: Agreement) -> Statement:
    """Compares the label with the strongest nuisance column, or reports whichever of the two exists."""
    name, scores, beyond = f"{name}/follows", agreed.scores.to_dict("index"), agreed.beyond_chance
    if len(np.unique(clusters)) == 1:
        return Statement(name, "All clips are in one cluster, which matches no column: every NMI is {nmi}.", {"nmi": 0})
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
    difference, low, high = agreed.difference("label", strongest)
    first, second = ("label", strongest) if difference >= 0 else (strongest, "label")
    return Statement(
        name,
        "{model}: the clusters follow the {first} (NMI {nmi_first:.2f}) "
        + ("more than" if low > 0 or high < 0 else "no more clearly than")
        + " the {second} (NMI {nmi_second:.2f}). Beyond what shuffled clusters would reach ({chance_first:.2f} and "
        "{chance_second:.2f}), label minus {nuisance} is {difference:+.2f} (95 % interval {low:+.2f} to {high:+.2f}).",
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
    counts = confusion(clusters, label)
    return Statement(
        f"{name}/matched",
        "Matched one to one, clusters and labels agree on {acc:.0%} of the clips (clusters used: {used}, labels: "
        "{labels}).",
        {"used": counts.shape[0], "labels": counts.shape[1], "acc": matched(counts)},
    )


def _agreement_parts(name: str, agreed: Agreement, n: int) -> tuple[Group, Table]:
    caption = (
        f"NMI of the clusters with each column of the {n} clips. Bars: 95 % bootstrap interval over clips ({RESAMPLES} "
        "resamples, centred on the value). Crosses: the NMI of shuffled clusters, which grows with the number of "
        "values; with few clips, every NMI is too high by up to that much."
        + ("" if "label" in agreed.scores.index else " There are no labels.")
    )
    rows = tuple(
        (str(column), f"{values}", f"{nmi:.2f}", f"{low:.2f} to {high:.2f}", f"{chance:.2f}")
        for column, values, nmi, low, high, chance in agreed.scores.itertuples()
    )
    titles = ("column", "values", "NMI", "95 % interval", "shuffled")
    drawing = figures.agreement(agreed, name=slug(name, "nmi"))
    return Group(caption, (drawing,)), Table(f"The same NMI in numbers ({n} clips).", titles, rows)


def _confusions(name: str, clusters: Ints, columns: Columns) -> Group:
    order = cluster_order(clusters, columns.get("label"))
    tables = [
        Confusion(column, confusion(clusters, values).loc[order])
        for column, values in columns.items()
        if 2 <= len(values.categories) <= MAX_VALUES
    ]
    order_in_words = "the order of the labels that match them one to one" if "label" in columns else "numerical order"
    caption = (
        f"The {len(clusters)} clips by cluster and column. Numbers count clips; the shade is their share of the "
        f"cluster, so that every cluster sums to one. Clusters are in {order_in_words}; empty ones are left out."
    )
    drawn = {table.column for table in tables}
    left = [f"{column} (values: {len(v.categories)})" for column, v in columns.items() if column not in drawn]
    caption += f" Not drawn: {', '.join(left)}." if left else ""
    drawings = [figures.confusion(table, name=slug(name, "by", table.column)) for table in tables]
    return Group(caption, tuple(drawings), wide=len(order) > MANY_CLUSTERS)


def _maps(name: str, spaces: Mapping[str, Floats], clusters: Ints, label: Values | None) -> Group:
    n, d = spaces["z"].shape
    colours = {"cluster": categories(pd.Series(clusters))} | ({} if label is None else {"label": label})
    maps = [project(space, points, method=method) for space, points in spaces.items() for method in ("PCA", "UMAP")]
    drawings = [
        figures.scatter(plot, values[plot.rows], by=by, name=slug(name, plot.method, plot.space, by))
        for plot in maps
        if not plot.reason
        for by, values in colours.items()
    ]
    drawn = f", of which {MAP_CLIPS} are drawn" if n > MAP_CLIPS else ""
    by = "by cluster (no labels)" if label is None else "by cluster and by label"
    caption = (
        f"One point per clip ({n} clips{drawn}), {by}: the posterior mean z (d = {d}, active units: "
        f"{active_units(spaces['z'])}) and the logits, whose argmax is the cluster. PCA is applied without scaling; "
        "its axes state their share of the variance."
    )
    if any(plot.method == "UMAP" and not plot.reason for plot in maps):
        caption += " UMAP keeps neighbours together; its distances mean little."
    missing: dict[tuple[str, str], list[str]] = {}
    for plot in maps:
        if plot.reason:
            missing.setdefault((plot.method, plot.reason), []).append(plot.space)
    caption += "".join(f" No {method} of {' and '.join(of)}: {why}." for (method, why), of in missing.items())
    return Group(caption, tuple(drawings))


def _pictures(name: str, drawn: Sequence[Picture]) -> Group:
    seen = [picture.prototype for picture in drawn] + [picture.mean for picture in drawn if picture.mean is not None]
    low, high = float(min(map(np.min, seen))), float(max(map(np.max, seen)))
    caption = (
        "For each cluster, the mean of its clips' features, and its prototype: the decoder's output for the cluster at "
        "the prior mean of z. Time (frames) runs to the right, frequency (bands) upwards; all share one colour scale, "
        f"from {low:.2f} (dark) to {high:.2f} (bright)."
    )
    if any(picture.mean is None for picture in drawn):
        caption += " An empty cluster has only a prototype."
    file = slug(name, "cluster")
    drawings = [figures.picture(picture, low=low, high=high, name=f"{file}-{picture.cluster}") for picture in drawn]
    return Group(caption, tuple(drawings))


def playable(model: Trained, examples: Sequence[Example], columns: Columns, audio_bytes: int) -> list[Group | Clip]:
    """Returns a caption and as many of the examples as `audio_bytes` allows; medoids take precedence."""
    sounds = [(example, sound) for example in examples if (sound := model.audio(example.clip)) is not None]
    wavs = [wav(samples, rate) for _, (samples, rate) in sounds]
    lowered = sum(map(len, wavs)) > audio_bytes
    if lowered:
        wavs = [wav(samples, rate, at_most=LOW_RATE) for _, (samples, rate) in sounds]
    kept = int((np.cumsum([len(data) for data in wavs]) <= audio_bytes).sum())
    caption = (
        "Examples to listen to: for each cluster the medoid, which is the clip nearest to the cluster's mean logits, "
        "and a borderline clip, the one whose two largest probabilities are closest. "
        f"16-bit mono, at most the first {CLIP_SECONDS:g} s"
    )
    caption += f", resampled to {LOW_RATE} Hz to save space." if lowered else "."
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
