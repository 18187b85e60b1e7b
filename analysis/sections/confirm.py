"""What fresh seeds say of a search's top settings: each against itself at the paper's temperature."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.columns import title
from analysis.figures import confirm as figures
from analysis.questions.confirm import Confirmed, Pair, confirmed
from analysis.questions.effects import Plan
from analysis.section import Group, Section, Statement, Table, Value, slug
from analysis.sections.effects import numbers, verdict
from analysis.trials import Study

QUESTION = "Does a top setting beat itself at the paper's temperature?"
HOW = (
    "studies/confirm.py trains the top settings of a finished study on fresh seeds, each beside itself at the paper's "
    "temperature: python studies/confirm.py results/NAME --seeds 5 (and --data-root for recordings). Then name both "
    "folders: catuvac report results/NAME results/NAME-confirm."
)


def section(study: Study, plans: Mapping[str, Plan]) -> Section:
    """A sentence, a drawing and a row of the table per pair."""
    runs = confirmed(study, plans)
    if not runs:
        return Section(QUESTION, (), (Group(f"There are no confirm runs. {HOW}"),))
    statements: list[Statement] = []
    parts: list[Group | Table] = []
    for run in runs:
        where = run.panel if len(runs) == 1 else f"{run.panel}, {run.study}"
        key = f"confirm/{slug(where)}"
        statements += [_pair(f"{key}/{pair.setting}", where, run, pair) for pair in run.pairs]
        statements.append(_seeds(f"{key}/seeds", where, run))
        if run.scores.size:
            parts.append(Group(_caption(where, run), (figures.draw(run, name=slug("confirm", where)),)))
        if run.pairs:
            parts.append(_table(where, run))
    return Section(QUESTION, tuple(statements), tuple(parts))


def _pair(name: str, where: str, run: Confirmed, pair: Pair) -> Statement:
    words: dict[str, Value] = {
        "where": where,
        "setting": pair.setting,
        "temperature": pair.words,
        "outcome": title(run.outcome),
        "seeds": pair.n,
    }
    left_out = ""
    if pair.undecided:
        words["undecided"] = pair.undecided
        left_out = " {undecided} of their trainings did not decide and are left out."
    if pair.contrast is None:
        text = "{where}: {setting} ({temperature}) cannot be told from itself: {reason}."
        return Statement(name, text + left_out, words | {"reason": pair.reason})
    text = (
        "{where}: {setting} ({temperature}) differs from itself at the paper's temperature by {value:+.3f} {outcome} "
        "({level:.4g} % interval {low:+.3f} to {high:+.3f}; {seeds} seeds). "
    )
    text += verdict(pair.contrast, fixed=run.plan.fixed, unit="seeds")
    return Statement(name, text + left_out, words | numbers(pair.contrast))


def _seeds(name: str, where: str, run: Confirmed) -> Statement:
    words: dict[str, Value] = {"where": where, "outcome": title(run.outcome)}
    text = "{where}: "
    if run.seed_sd is None:
        text += "no setting was trained to its end on two seeds, so it is not known how far seeds alone lie apart."
    else:
        words["seed_sd"] = run.seed_sd
        text += "another seed moves {outcome} of one setting by {seed_sd:.3f} (standard deviation)."
    if not run.pairs:
        text += (
            " No setting stands beside itself at the paper's temperature, as in a run of an earlier version, which "
            "compared settings that differ in more than the temperature: nothing can be said of it."
        )
    return Statement(name, text, words)


def _caption(where: str, run: Confirmed) -> str:
    missing = run.trainings - run.complete
    return (
        f"{where}: one dot per training of {run.study} that is complete and decided; a line joins the trainings of one "
        "seed; the bar beside the dots is their mean with its 95 % t-interval. Settings were chosen by the search's "
        f"objective, which reads no label.{f' {missing} trainings did not complete.' if missing else ''}"
    )


def _table(where: str, run: Confirmed) -> Table:
    rows = []
    for pair in run.pairs:
        contrast = pair.contrast
        own = (pair.setting, pair.words, str(pair.n), str(pair.undecided))
        if contrast is None:
            rows.append((*own, "–", "–", pair.reason))
            continue
        interval = f"{contrast.value:+.3f} ({contrast.low:+.3f} to {contrast.high:+.3f})"
        rows.append((*own, interval, f"{contrast.detectable:.3f}", contrast.verdict))
    return Table(
        f"{where}: each top setting less itself at the paper's temperature, {title(run.outcome)}. Intervals are paired "
        "t-intervals that hold together at 95 % (Bonferroni).",
        ("setting", "temperature", "seeds", "undecided", "difference (interval)", "detectable", "verdict"),
        tuple(rows),
    )
