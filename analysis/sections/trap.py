"""The Silhouette trap: how much of Silhouette_p is saturation, and how far sharpening alone changes it."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.columns import title
from analysis.figures import trap as figures
from analysis.questions.trap import FOLDS, LITTLE, MAX_CLIPS, MOSTLY, SHARPENING, Explained, Sharpened, Trap, trap
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.trials import Study


def section(study: Study, sharpened: Sequence[Sharpened] = ()) -> Section:
    """Relates Silhouette_p to confidence and clusters used, with the null of sharpening alone.

    Args:
        study: any number of corpora.
        sharpened: curves of trained models; each is shown in the panels of its corpus and K.
    """
    statements: list[Statement] = []
    parts: list[Group | Table] = []
    headline: list[str] = []
    for name, panel in study.panels().items():
        result = trap(panel)
        corpus, k = str(panel.trials["corpus"].iloc[0]), int(panel.trials["n_clusters"].iloc[0])
        models = [model for model in sharpened if model.n_clusters == k and model.corpus in ("", corpus)]
        key = f"trap/{slug(name)}"
        verdict = _verdict(key, name, result)
        nulls = [_sharpening(f"{key}/sharpened-{i}-{slug(m.name)}", name, m) for i, m in enumerate(models, 1)]
        statements += [verdict, *nulls]
        headline += [statement.name for statement in (verdict, *nulls)][:2]
        parts += _parts(name, k, result, models)
    if not parts:
        parts = [Group(f"There is no Silhouette (p) to analyse here, because {study.absent}.")]
    return Section(
        "Does a high Silhouette (p) mean more than saturation? The Silhouette trap",
        tuple(statements),
        tuple(parts),
        tuple(headline),
    )


def _verdict(key: str, panel: str, result: Trap) -> Statement:
    explained, measure = result.explained, title(result.measure)
    facts: dict[str, Value] = {"panel": panel, "measure": measure, "n": explained.n}
    name = f"{key}/explained"
    if explained.alone is None:
        text = "{panel}: how much of Silhouette (p) is saturation cannot be estimated: {reason}."
        return Statement(name, text, {"panel": panel, "reason": explained.reason})
    facts |= {"alone": explained.alone.value, "alone_low": explained.alone.low, "alone_high": explained.alone.high}
    text = (
        "{panel}: {measure} and clusters used alone predict the Silhouette (p) of a trial with R² = {alone:z.2f} "
        "(95 % interval {alone_low:z.2f} to {alone_high:z.2f}, {n} decided trials of designed arms). "
    )
    if explained.gain is None or explained.with_ami is None:
        return Statement(name, text + "Not all of them have labels, so what AMI would add is not known.", facts)
    facts |= {"gain": explained.gain.value, "gain_low": explained.gain.low, "gain_high": explained.gain.high}
    facts |= {"with_ami": explained.with_ami.value, "verdict": explained.verdict}
    text += "AMI as a further predictor adds {gain:z.2f} ({gain_low:z.2f} to {gain_high:z.2f}): "
    text += {
        "saturated": "the score is mostly saturation, and contains little else about the partition.",
        "more than saturation": "the score contains more about the partition than its saturation does.",
        "neither": "neither saturation nor AMI explains the score.",
        "undecided": "these trials do not decide whether the score is more than saturation.",
    }[explained.verdict]
    return Statement(name, text, facts)


def _sharpening(name: str, panel: str, model: Sharpened) -> Statement:
    facts: dict[str, Value] = {"panel": panel, "model": model.name, "used": model.clusters_used, "k": model.n_clusters}
    if model.curve.empty:
        text = "{panel}: {model} uses {used} of {k} clusters, so there is no Silhouette (p) to change by sharpening."
        return Statement(name, text, facts)
    curve = model.curve.set_index("temperature")
    flat, sharp = float(curve.index.max()), float(curve.index.min())
    facts |= {
        "trained": float(curve["silhouette"][1.0]),
        "sharp": float(curve["silhouette"][sharp]),
        "flat": float(curve["silhouette"][flat]),
        "sharp_temperature": sharp,
        "flat_temperature": flat,
        "confidence_trained": float(curve["confidence"][1.0]),
        "confidence_sharp": float(curve["confidence"][sharp]),
        "clips": model.clips,
    }
    partition = "clusters used {used} of {k}"
    if model.ami is not None and model.acc is not None:
        facts |= {"ami": model.ami, "acc": model.acc}
        partition += ", ACC {acc:.2f}, AMI {ami:.2f}"
    verb = "raises" if facts["sharp"] > facts["trained"] else "changes"  # type: ignore[operator]
    text = (
        f"{{panel}}: sharpening alone {verb} Silhouette (p) of {{model}} from {{trained:z.2f}} to {{sharp:z.2f}} "
        f"(logits divided by {{sharp_temperature:g}}) with an unchanged partition ({partition}); "
        "logits divided by {flat_temperature:g} give {flat:z.2f}."
    )
    return Statement(name, text, facts)


def _parts(panel: str, k: int, result: Trap, sharpened: Sequence[Sharpened]) -> list[Group | Table]:
    measure, n = title(result.measure), len(result.points)
    drawn = [model for model in sharpened if not model.curve.empty]
    parts: list[Group | Table] = []
    left_out = f"{result.undefined} that use one cluster or lack a value are left out"
    marks = (
        " Hollow points are not used for inference: TPE or a confirm run placed them, or q(y|x) never decided."
        if result.points["adaptive"].any()
        else ""
    )
    if n == 0 and not drawn:
        return [Group(f"{panel}: not drawn, as no complete trial has Silhouette (p), {measure} and two clusters.")]
    null = (
        " Lines: the logits of one model divided by a temperature, without retraining and without any clip changing "
        "its cluster; the diamond is the model as trained."
        if drawn
        else " No trained model was given, so the null of sharpening alone is not drawn."
    )
    caption = (
        f"{panel}: Silhouette (p) of {n} complete trials ({left_out}) against {measure}, averaged over the validation "
        f"clips, and against clusters used.{marks}{null}"
    )
    drawings = [figures.against_saturation(f"trap-{slug(panel)}-saturation", result.points, measure, k, drawn)]
    if n:
        drawings.append(figures.against_clusters(f"trap-{slug(panel)}-clusters", result.points, measure, k))
    parts.append(Group(caption, tuple(drawings)))
    if drawn:
        clips = ", ".join(f"{model.name}: {model.clips}" for model in drawn)
        parts.append(
            Group(
                f"{panel}: the null. Silhouette and DBI of softmax(logits / T) for T from {SHARPENING[0]:g} to "
                f"{SHARPENING[-1]:g}; T = 1 is the model as trained. Validation clips scored: {clips} (a seeded random "
                f"subset above {MAX_CLIPS}).",
                tuple(
                    figures.sharpening(f"trap-{slug(panel)}-sharpened-{column}", drawn, column)
                    for column in ("silhouette", "dbi")
                ),
            )
        )
    if result.explained.alone is not None:
        parts.append(_table(panel, measure, result.explained))
    return parts


def _table(panel: str, measure: str, explained: Explained) -> Table:
    rows = [
        (f"{measure}, clusters used", explained.alone),
        (f"{measure}, clusters used, AMI", explained.with_ami),
        ("gain from AMI", explained.gain),
    ]
    return Table(
        f"{panel}: variance of Silhouette (p) explained across {explained.n} independent trials: R² of a quadratic "
        f"ridge regression for held-out trials ({FOLDS} folds, all seeds of a setting in one fold), with a 95 % "
        "bootstrap interval over settings; below 0 is worse than the mean. It counts as saturation if the interval of "
        f"the first R² is above {MOSTLY:g} and that of the gain from AMI is below {LITTLE:g}.",
        ("predicted from", "R²", "95 % interval"),
        tuple(
            (name, f"{estimate.value:z.2f}", f"{estimate.low:z.2f} to {estimate.high:z.2f}")
            if estimate
            else (name, "no labels", "")
            for name, estimate in rows
        ),
    )
