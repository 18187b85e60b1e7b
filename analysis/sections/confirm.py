"""The top settings of a search on fresh seeds, each compared with itself at the paper's temperature."""

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
    "studies/confirm.py trains the top settings of a finished study on fresh seeds, each at its own and at the paper's "
    "temperature: python studies/confirm.py results/NAME --seeds 5 (with --data-root for recordings). Then pass both "
    "folders to the report: catuvac report results/NAME results/NAME-confirm."
)


def section(study: Study, plans: Mapping[str, Plan]) -> Section:
    """Builds the section: one sentence, one drawing and one table row per pair."""
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
    return Section(QUESTION, tuple(statements), tuple(parts), tuple(each.name for each in statements[:3]))


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
        left_out = " {undecided} of their training runs did not decide and are left out."
    if pair.contrast is None:
        text = "{where}: {setting} ({temperature}) cannot be compared with the paper's temperature: {reason}."
        return Statement(name, text + left_out, words | {"reason": pair.reason})
    text = (
        "{where}: {setting} ({temperature}) differs from itself at the paper's temperature by {value:+.3f} {outcome} "
        "({level:.4g} % interval {low:+.3f} to {high:+.3f}; {seeds} seeds). "
    )
    text += verdict(pair.contrast, fixed=run.plan.fixed)
    return Statement(name, text + left_out, words | numbers(pair.contrast))


def _seeds(name: str, where: str, run: Confirmed) -> Statement:
    words: dict[str, Value] = {"where": where, "outcome": title(run.outcome)}
    text = "{where}: "
    if run.seed_sd is None:
        text += "no setting has complete training runs on two seeds, so the variation between seeds is not known."
    else:
        words["seed_sd"] = run.seed_sd
        text += "another seed moves {outcome} of one setting by {seed_sd:.3f} (standard deviation)."
    if not run.pairs:
        text += (
            " No setting was also trained at the paper's temperature, as in runs of an earlier version, which compared "
            "settings that differ in more than the temperature: these trials do not show its effect."
        )
    return Statement(name, text, words)


def _caption(where: str, run: Confirmed) -> str:
    missing = run.trainings - run.complete
    return (
        f"{where}: one dot per complete and decided training run of {run.study}; lines join the runs of one seed; the "
        "bar next to the dots is their mean with its 95 % t-interval. Settings were selected by the search's "
        f"objective, which uses no labels.{f' {missing} training runs did not complete.' if missing else ''}"
    )


def _table(where: str, run: Confirmed) -> Table:
    rows = []
    for pair in run.pairs:
        contrast = pair.contrast
        first = (pair.setting, pair.words, str(pair.n), str(pair.undecided))
        if contrast is None:
            rows.append((*first, "–", "–", pair.reason))
            continue
        interval = f"{contrast.value:+.3f} ({contrast.low:+.3f} to {contrast.high:+.3f})"
        rows.append((*first, interval, f"{contrast.detectable:.3f}", contrast.verdict))
    return Table(
        f"{where}: {title(run.outcome)} of each top setting minus its value at the paper's temperature. Intervals are "
        "paired t-intervals with a joint level of 95 % (Bonferroni).",
        ("setting", "temperature", "seeds", "undecided", "difference (interval)", "detectable", "verdict"),
        tuple(rows),
    )
