"""The Silhouette trap in words: what of Silhouette_p is saturation, and what sharpening alone makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.columns import title
from analysis.figures import trap as figures
from analysis.questions.trap import FOLDS, LITTLE, MAX_CLIPS, MOSTLY, SHARPENING, Explained, Sharpened, Trap, trap
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.trials import Study


def section(study: Study, sharpened: Sequence[Sharpened] = ()) -> Section:
    """Silhouette_p against confidence and clusters used, what of it is saturation, and the null of sharpening alone.

    Args:
        study: of any number of corpora.
        sharpened: of trained models; each is shown in the panels of its corpus and K.
    """
    statements: list[Statement] = []
    parts: list[Group | Table] = []
    headline: list[str] = []
    for name, panel in study.panels().items():
        found = trap(panel)
        corpus, k = str(panel.trials["corpus"].iloc[0]), int(panel.trials["n_clusters"].iloc[0])
        mine = [each for each in sharpened if each.n_clusters == k and each.corpus in ("", corpus)]
        key = f"trap/{slug(name)}"
        verdict = _verdict(key, name, found)
        nulls = [_sharpening(f"{key}/sharpened-{i}-{slug(each.name)}", name, each) for i, each in enumerate(mine, 1)]
        statements += [verdict, *nulls]
        headline += [each.name for each in (verdict, *nulls)][:2]
        parts += _parts(name, k, found, mine)
    if not parts:
        parts = [Group("No trial of Cat. UVAC has been recorded, so there is no Silhouette_p to look at.")]
    return Section(
        "Is a high Silhouette (p) more than saturation? The Silhouette trap",
        tuple(statements),
        tuple(parts),
        tuple(headline),
    )


def _verdict(key: str, panel: str, found: Trap) -> Statement:
    explained, measure = found.explained, title(found.measure)
    facts: dict[str, Value] = {"panel": panel, "measure": measure, "n": explained.n}
    name = f"{key}/explained"
    if explained.alone is None:
        text = "{panel}: how much of Silhouette (p) is saturation cannot be said: {reason}."
        return Statement(name, text, {"panel": panel, "reason": explained.reason})
    facts |= {"alone": explained.alone.value, "alone_low": explained.alone.low, "alone_high": explained.alone.high}
    text = (
        "{panel}: {measure} and clusters used alone predict Silhouette (p) of a trial with R² = {alone:z.2f} "
        "(95 % interval {alone_low:z.2f} to {alone_high:z.2f}, {n} trainings of designed arms that decided). "
    )
    if explained.gain is None or explained.with_ami is None:
        return Statement(name, text + "There are no labels for all of them, so what AMI would add is not known.", facts)
    facts |= {"gain": explained.gain.value, "gain_low": explained.gain.low, "gain_high": explained.gain.high}
    facts |= {"with_ami": explained.with_ami.value, "verdict": explained.verdict}
    text += "Knowing AMI too adds {gain:z.2f} ({gain_low:z.2f} to {gain_high:z.2f}): "
    text += {
        "saturated": "the score is mostly saturation, and says little of the partition beyond it.",
        "more than saturation": "the score says more of the partition than its saturation does.",
        "neither": "neither saturation nor AMI explains the score.",
        "undecided": "these trials do not decide whether it is more than saturation.",
    }[explained.verdict]
    return Statement(name, text, facts)


def _sharpening(name: str, panel: str, model: Sharpened) -> Statement:
    facts: dict[str, Value] = {"panel": panel, "model": model.name, "used": model.clusters_used, "k": model.n_clusters}
    if model.curve.empty:
        text = "{panel}: {model} uses {used} of {k} clusters, so sharpening has no Silhouette (p) to change."
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
    verb = "lifts" if facts["sharp"] > facts["trained"] else "takes"  # type: ignore[operator]
    text = (
        f"{{panel}}: sharpening alone {verb} Silhouette (p) of {{model}} from {{trained:z.2f}} to {{sharp:z.2f}} "
        f"(logits divided by {{sharp_temperature:g}}) at an unchanged partition ({partition}); "
        "divided by {flat_temperature:g}, they give {flat:z.2f}."
    )
    return Statement(name, text, facts)


def _parts(panel: str, k: int, found: Trap, sharpened: Sequence[Sharpened]) -> list[Group | Table]:
    measure, n = title(found.measure), len(found.points)
    drawn = [each for each in sharpened if not each.curve.empty]
    parts: list[Group | Table] = []
    left_out = f"{found.undefined} left out, which use one cluster or lack a value"
    marks = (
        " Hollow points carry no inference: TPE or a confirm run placed them, or q(y|x) never decided."
        if found.points["adaptive"].any()
        else ""
    )
    if n == 0 and not drawn:
        return [Group(f"{panel}: nothing drawn, as no complete trial has Silhouette (p), {measure} and two clusters.")]
    null = (
        " Lines: the same logits divided by a temperature, nothing retrained and no clip changing its cluster; the "
        "diamond is the model as trained."
        if drawn
        else " No trained model was given, so the null of sharpening alone is not drawn."
    )
    caption = (
        f"{panel}: Silhouette (p) of {n} complete trials ({left_out}) against {measure}, the mean over the validation "
        f"clips, and against clusters used.{marks}{null}"
    )
    drawings = [figures.against_saturation(f"trap-{slug(panel)}-saturation", found.points, measure, k, drawn)]
    if n:
        drawings.append(figures.against_clusters(f"trap-{slug(panel)}-clusters", found.points, measure, k))
    parts.append(Group(caption, tuple(drawings)))
    if drawn:
        clips = ", ".join(f"{each.name}: {each.clips}" for each in drawn)
        parts.append(
            Group(
                f"{panel}: the null. Silhouette and DBI of softmax(logits / T) for T from {SHARPENING[0]:g} to "
                f"{SHARPENING[-1]:g}; T = 1 is the model as trained. Validation clips scored ({clips}; a seeded draw "
                f"above {MAX_CLIPS}).",
                tuple(
                    figures.sharpening(f"trap-{slug(panel)}-sharpened-{column}", drawn, column)
                    for column in ("silhouette", "dbi")
                ),
            )
        )
    if found.explained.alone is not None:
        parts.append(_table(panel, measure, found.explained))
    return parts


def _table(panel: str, measure: str, explained: Explained) -> Table:
    rows = [
        (f"{measure}, clusters used", explained.alone),
        (f"{measure}, clusters used, AMI", explained.with_ami),
        ("what AMI adds", explained.gain),
    ]
    return Table(
        f"{panel}: variance of Silhouette (p) explained between {explained.n} independent trials: R² of a quadratic "
        f"ridge regression on predictions for trials it has not seen ({FOLDS} folds, seeds of one setting in one "
        "fold), with a 95 % bootstrap interval over settings; below 0 is worse than the mean. It counts as "
        f"saturation where the first surely exceeds {MOSTLY:g} and AMI surely adds less than {LITTLE:g}.",
        ("predicted from", "R²", "95 % interval"),
        tuple(
            (name, f"{each.value:z.2f}", f"{each.low:z.2f} to {each.high:z.2f}") if each else (name, "no labels", "")
            for name, each in rows
        ),
    )
