"""Was it the setting or the seed? Variance components and paired tests of the runs that `studies/confirm.py` left."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis import columns
from analysis.figures import seeds as figures
from analysis.section import Drawing, Group, Section, Statement, Table, Value, slug
from analysis.stats.bootstrap import CONFIDENCE, MIN_UNITS, RESAMPLES, holm, resampled
from analysis.trials import Study, values

METRICS = ("nmi", "acc", "silhouette_x", "silhouette_p")  # higher is better in all; the first that exists answers
CLUSTERS = "clusters_used"
SEARCHED = ("random", "qmc")  # the arms of a search whose spread the seeds' is set against
SETTING = r"-k\d+-(.+)-s\d+$"  # of a trial_id such as "fsdd-k10-top1-s40" (catuvac.grid.Cell)
PAPER = {"config/tau_start": 1.0, "config/tau_end": 0.5}  # and an exponential schedule (studies/confirm.py)
MIN_PAIRS = 3
ALPHA = 1 - CONFIDENCE
HOW = (
    "studies/confirm.py trains the top settings of a finished study, and the paper's, on fresh seeds: "
    "python studies/confirm.py results/NAME --seeds 5 (and --data-root for recordings). "
    "Then name both folders: catuvac report results/NAME results/NAME-confirm."
)


@dataclass(frozen=True)
class Components:
    """Variance between seeds and between settings, a one-way random-effects model by the method of moments.

    Attributes:
        seed, setting: standard deviations; setting is None with a single setting.
        share: of the variance that is due to seeds, 1 - ICC, with its 95 % interval; None where `reason` says why.
        freedom: degrees of freedom of `seed`.
    """

    seed: float | None = None
    setting: float | None = None
    share: float | None = None
    low: float | None = None
    high: float | None = None
    freedom: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Paired:
    """A setting against the paper's, seed by seed: mean difference, 95 % t-interval, two-sided paired t-test."""

    setting: str
    n: int  # seeds that both have
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm: float | None = None  # p after Holm's correction over every test of the comparison
    reason: str = ""


@dataclass(frozen=True)
class Search:
    """Variance of the validation score between seeds, as a share of that between independent trials of the search."""

    share: float
    low: float
    high: float
    deviation: float  # between the trials
    seed: float  # between the seeds of a setting, on the validation split
    trials: int


@dataclass(frozen=True)
class Response:
    """A score of every training.

    Attributes:
        column: of the table of trials; of the test split where it has one.
        scores: a row per seed, a column per setting; NaN where a training has none.
        clusters: the clusters used, of the same rows and columns and of the same split.
        tests: every other setting against the paper's.
        search: None where the study has no random or QMC trials to compare with.
    """

    column: str
    scores: pd.DataFrame
    clusters: pd.DataFrame
    components: Components
    tests: tuple[Paired, ...] = ()
    search: Search | None = None

    @property
    def label(self) -> str:
        """For people: "test NMI"."""
        return columns.title(self.column)


@dataclass(frozen=True)
class Comparison:
    """One run of `studies/confirm.py` on one corpus and K.

    Attributes:
        study: its name.
        paper: the column that holds the paper's setting; None where no training has it.
        best: the setting that the study's objective put first; None where there is none beside the paper's.
        trainings: all of them, `complete` of which count.
        responses: of `METRICS` as far as they exist, and the clusters used last.
    """

    study: str
    k: int
    paper: str | None
    best: str | None
    trainings: int
    complete: int
    responses: tuple[Response, ...]


def comparisons(panel: Study) -> list[Comparison]:
    """Every run of `studies/confirm.py` among the trials of one corpus and K."""
    mine = panel.trials[panel.trials["arm"] == "confirm"]
    names = mine["trial_id"].astype(str).str.extract(SETTING)[0].to_numpy(dtype=object)
    mine = mine.assign(setting=names)
    mine = mine[mine["setting"].notna()]
    return [_comparison(panel, str(name), trials) for name, trials in mine.groupby("study", sort=True)]


def components(scores: pd.DataFrame) -> Components:
    """Splits the variance of a table of seeds by settings; cells may be missing."""
    by_setting = [column[np.isfinite(column)] for column in scores.to_numpy(dtype=float).T]
    by_setting = [column for column in by_setting if len(column)]
    sizes = np.array([len(column) for column in by_setting])
    groups, total = len(sizes), int(sizes.sum())
    freedom = total - groups
    if freedom < 1:
        return Components(reason="no setting has two seeds" if total else "no training has the score")
    within = sum(float(((column - column.mean()) ** 2).sum()) for column in by_setting) / freedom
    seed = math.sqrt(within)
    if groups == 1:
        return Components(seed=seed, freedom=freedom, reason="there is one setting only")
    means = np.array([column.mean() for column in by_setting])
    between = float((sizes * (means - (sizes @ means) / total) ** 2).sum()) / (groups - 1)
    typical = (total - (sizes @ sizes) / total) / (groups - 1)  # trainings a setting: n where all have n
    setting = math.sqrt(max(0.0, (between - within) / typical))
    if within < 1e-18:
        why = "seeds do not change it" if between > 1e-18 else "it is constant"
        return Components(seed=seed, setting=setting, freedom=freedom, reason=why)
    # The interval of a one-way layout under normality (Searle 1971). On fabricated tables of 4 to 10 settings by 3 to
    # 10 seeds it covered in 92 to 97 % of cases; a percentile bootstrap of seeds or of settings in 51 to 84 %.
    ratio = between / within
    quantiles = stats.f.ppf([(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2], groups - 1, freedom)
    correlation = [max(0.0, (ratio / q - 1) / (ratio / q - 1 + typical)) for q in quantiles]
    return Components(
        seed=seed,
        setting=setting,
        share=within / (within + setting**2),
        low=float(1 - correlation[1]),
        high=float(1 - correlation[0]),
        freedom=freedom,
    )


def paired(scores: pd.DataFrame, setting: str, against: str) -> Paired:
    """A paired t-test; with 5 seeds the signed-rank test cannot fall below p = 0.06, so it would find nothing."""
    difference = (scores[setting] - scores[against]).dropna().to_numpy(dtype=float)
    n = len(difference)
    if n < MIN_PAIRS:
        return Paired(setting, n, reason=f"fewer than {MIN_PAIRS} seeds have both")
    if np.ptp(difference) < 1e-12:
        return Paired(setting, n, float(difference.mean()), reason="every seed has the same difference")
    found = stats.ttest_1samp(difference, 0.0)
    interval = found.confidence_interval(CONFIDENCE)
    return Paired(setting, n, float(difference.mean()), float(interval.low), float(interval.high), float(found.pvalue))


def against_search(seeds: Components, trials: NDArray[np.float64]) -> Search | None:
    """Sets the variance between seeds against that between independent trials, each of another setting and seed.

    The interval draws both: the trials by a bootstrap, the seeds' variance from its chi-squared distribution.
    """
    trials = trials[np.isfinite(trials)]
    if seeds.seed is None or len(trials) < MIN_UNITS or np.ptp(trials) == 0:
        return None
    rng = np.random.default_rng(0)
    drawn = [trials[rows].var(ddof=1) for rows in resampled(np.arange(len(trials)), rng=rng)]
    chance = seeds.freedom / rng.chisquare(seeds.freedom, RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.nanpercentile(seeds.seed**2 * chance / np.array(drawn), [50 * ALPHA, 100 - 50 * ALPHA])
    spread = float(trials.var(ddof=1))
    if not np.isfinite(high):
        return None
    return Search(seeds.seed**2 / spread, float(low), float(high), math.sqrt(spread), seeds.seed, len(trials))


def section(study: Study) -> Section:
    """Seeds against settings, and the best setting against the paper's."""
    statements: list[Statement] = []
    parts: list[Group | Table] = []
    headline: list[str] = []
    panels = study.panels()
    for title, panel in panels.items():
        found = comparisons(panel)
        if not found:
            parts.append(Group(f"{title}: no complete confirm runs, so seeds cannot be told from settings. {HOW}"))
        own: list[Statement] = []
        for comparison in found:
            name = slug(title, comparison.study) if len(found) > 1 else slug(title)
            where = f"{title}, {comparison.study}" if len(found) > 1 or len(panels) > 1 else title
            own += _statements(comparison, name, where)
            parts.append(_group(comparison, name, where))
            parts += _tables(comparison, where)
        statements += own
        headline += _headline(own)
    if not panels:
        parts.append(Group("There is no trial of Cat. UVAC, so there are no seeds to compare."))
    return Section("Is it the setting or the seed?", tuple(statements), tuple(parts), tuple(headline))


def _comparison(panel: Study, name: str, trials: pd.DataFrame) -> Comparison:
    complete = trials[trials["status"] == "complete"]
    settings = sorted(complete["setting"].unique(), key=_rank)
    paper = _paper(complete, settings)
    best = next((setting for setting in settings if setting.startswith("top")), None)
    searched = panel.independent[panel.independent["arm"].isin(SEARCHED)]
    clusters = {namespace: _by_seed(complete, f"{namespace}/{CLUSTERS}", settings) for namespace in ("test", "val")}
    responses = []
    for metric in (*METRICS, CLUSTERS):
        namespace = next((name for name in ("test", "val") if values(complete, f"{name}/{metric}").notna().any()), None)
        if namespace is None:
            continue
        scores = _by_seed(complete, f"{namespace}/{metric}", settings)
        response = Response(f"{namespace}/{metric}", scores, clusters[namespace], components(scores))
        if metric != CLUSTERS:
            validation = components(_by_seed(complete, f"val/{metric}", settings))
            response = replace(
                response,
                tests=tuple(paired(scores, other, paper) for other in settings if other != paper) if paper else (),
                search=against_search(validation, np.asarray(values(searched, f"val/{metric}"), dtype=np.float64)),
            )
        responses.append(response)
    return Comparison(
        study=name,
        k=int(trials["n_clusters"].iloc[0]),
        paper=paper,
        best=best,
        trainings=len(trials),
        complete=len(complete),
        responses=_corrected(responses),
    )


def _corrected(responses: Sequence[Response]) -> tuple[Response, ...]:
    """With Holm's correction over every test of every response together."""
    adjusted = iter(holm([test.p for response in responses for test in response.tests if test.p is not None]))
    return tuple(
        replace(
            response,
            tests=tuple(test if test.p is None else replace(test, holm=next(adjusted)) for test in response.tests),
        )
        for response in responses
    )


def _by_seed(trials: pd.DataFrame, column: str, settings: Sequence[str]) -> pd.DataFrame:
    flat = trials[["seed", "setting"]].assign(score=values(trials, column))
    return flat.pivot(index="seed", columns="setting", values="score").reindex(columns=list(settings))


def _rank(setting: str) -> tuple[bool, int, str]:
    """Orders top1, top2, …, top10, and the paper's last."""
    digits = setting.removeprefix("top")
    return setting == "paper", int(digits) if digits.isdigit() else 0, setting


def _paper(trials: pd.DataFrame, settings: Sequence[str]) -> str | None:
    """The paper's setting; where it is one of the top settings, `studies/confirm.py` gives it that name alone."""
    if "paper" in settings:
        return "paper"
    same = trials.get("config/tau_schedule", pd.Series("", index=trials.index)) == "exponential"
    for column, value in PAPER.items():
        same &= np.isclose(values(trials, column), value)
    return min(trials.loc[same.fillna(False), "setting"].unique(), key=_rank, default=None)


def _headline(statements: Sequence[Statement]) -> list[str]:
    """The first test, and the first share."""
    names = [statement.name for statement in statements]
    return [name for kind in ("/paper/", "/share/") for name in [n for n in names if kind in n][:1]]


def _statements(comparison: Comparison, name: str, where: str) -> Iterator[Statement]:
    for response in comparison.responses:
        if response.column.endswith(CLUSTERS):
            continue
        key = response.column.rpartition("/")[2]
        said: dict[str, Value] = {"where": where, "metric": response.label}
        yield from _test(comparison, response, f"seeds/{name}/paper/{key}", said)
        yield from _share(response, f"seeds/{name}/share/{key}", said)
        if response.search is not None:
            yield _search(response, response.search, f"seeds/{name}/search/{key}", said)


def _search(response: Response, found: Search, name: str, said: dict[str, Value]) -> Statement:
    clusters, used = _clusters(response)
    return Statement(
        name,
        "{where}: on the validation split, the variance of {metric} between seeds is {share:.0f} % (95 % {low:.0f} to "
        "{high:.0f} %) of that between the {trials} independent trials of the search (sd {seed:.3f} against "
        "{deviation:.3f})." + clusters,
        {
            **said,
            **used,
            "metric": response.label.removeprefix("test "),
            "share": 100 * found.share,
            "low": 100 * found.low,
            "high": 100 * found.high,
            "trials": found.trials,
            "seed": found.seed,
            "deviation": found.deviation,
        },
    )


def _clusters(response: Response) -> tuple[str, dict[str, Value]]:
    """What is said of the clusters used beside a score in p; nothing beside another."""
    used = response.clusters.to_numpy(dtype=float)
    if not response.column.endswith("_p") or not np.isfinite(used).any():
        return "", {}
    said: dict[str, Value] = {"fewest": float(np.nanmin(used)), "most": float(np.nanmax(used))}
    return " The confirm runs use {fewest:.0f} to {most:.0f} clusters.", said


def _test(comparison: Comparison, response: Response, name: str, said: dict[str, Value]) -> Iterator[Statement]:
    best, paper = comparison.best, comparison.paper
    if paper is None or best is None:
        missing = "the paper's setting" if paper is None else "a top setting"
        yield Statement(
            name, "{where}: no complete training has {missing}; nothing to compare.", {**said, "missing": missing}
        )
        return
    if best == paper:
        yield Statement(
            name,
            "{where}: the best setting of the search, {setting}, has the paper's own temperature, so there is nothing "
            "to compare.",
            {**said, "setting": best},
        )
        return
    test = next(test for test in response.tests if test.setting == best)
    said = {**said, "setting": best, "n": test.n}
    if response.column.endswith("_p"):
        used = response.clusters[[best, paper]].mean()
        if used.notna().all():
            said |= {"used": float(used[best]), "paper_used": float(used[paper])}
    clusters = " Clusters used: {used:.1f} against {paper_used:.1f}." if "used" in said else ""
    if test.difference is None or test.low is None or test.high is None or test.holm is None:
        yield Statement(
            name,
            "{where}: {setting} and the paper's setting cannot be tested on {metric}: {reason}.",
            {**said, "reason": test.reason},
        )
        return
    said |= {"difference": test.difference, "low": test.low, "high": test.high, "p": test.holm}
    numbers = "(95 % {low:+.3f} to {high:+.3f}; paired t-test, Holm p = {p:.2g}; {n} seeds)."
    if test.holm < ALPHA:
        verb, said["size"] = ("beats" if test.difference > 0 else "loses to"), abs(test.difference)
        text = f"{{where}}: {{setting}} {verb} the paper's setting by {{size:.3f}} {{metric}} {numbers}"
    else:
        text = (
            "{where}: {setting} does not beat the paper's setting, nor lose to it, beyond doubt: {difference:+.3f} "
            f"{{metric}} {numbers}"
        )
    yield Statement(name, text + clusters, said)


def _share(response: Response, name: str, said: dict[str, Value]) -> Iterator[Statement]:
    found = response.components
    if found.share is None or found.low is None or found.high is None or found.seed is None or found.setting is None:
        yield Statement(
            name,
            "{where}: the variance of {metric} cannot be split into seeds and settings: {reason}.",
            {**said, "reason": found.reason},
        )
        return
    if found.low > 0.5:
        verdict = "seeds matter more than these settings"
    elif found.high < 0.5:
        verdict = "these settings matter more than the seed"
    else:
        verdict = "which of the two matters more is open"
    clusters, used = _clusters(response)
    yield Statement(
        name,
        "{where}: seeds make {share:.0f} % (95 % {low:.0f} to {high:.0f} %) of the variance of {metric} between "
        "{settings} confirmed settings on {seeds} seeds: sd {seed:.3f} between seeds, {setting:.3f} between settings. "
        "So {verdict}." + clusters,
        {
            **said,
            **used,
            "share": 100 * found.share,
            "low": 100 * found.low,
            "high": 100 * found.high,
            "settings": response.scores.shape[1],
            "seeds": response.scores.shape[0],
            "seed": found.seed,
            "setting": found.setting,
            "verdict": verdict,
        },
    )


def _group(comparison: Comparison, name: str, where: str) -> Group:
    notes = []
    if not any(response.column.endswith("nmi") for response in comparison.responses):
        notes.append("There are no labels, so no ACC and no NMI.")
    if comparison.complete < comparison.trainings:
        notes.append(f"{comparison.trainings - comparison.complete} trainings did not complete and are left out.")
    if not comparison.responses:
        return Group(
            f"{where}: no confirm run of {comparison.study} is complete with a score. {' '.join(notes)}".strip()
        )
    drawings: list[Drawing] = [
        figures.draw(response, k=comparison.k, name=slug("seeds", name, response.column))
        for response in comparison.responses
    ]
    return Group(
        f"{where}: a dot per training of {comparison.study}, {comparison.complete} complete; a line joins the "
        "settings of one seed; bar: mean with its 95 % t-interval. Settings were chosen by the study's objective, "
        f"which reads no label. {' '.join(notes)}".strip(),
        tuple(drawings),
    )


def _tables(comparison: Comparison, where: str) -> Iterator[Table]:
    if comparison.responses:
        yield Table(
            f"{where}: how much of the variance is due to the seed. One-way random effects by the method of moments, "
            "95 % interval of the share from the F distribution. The settings are the best of a search and the "
            "paper's, not a sample of the space; last column: variance between seeds over that between the "
            "search's random and QMC trials (validation split).",
            ("score", "sd, seeds", "sd, settings", "seeds' share", "95 %", "share of the search's"),
            tuple(_components_row(response) for response in comparison.responses),
        )
    rows = [_test_row(response, test) for response in comparison.responses for test in response.tests]
    if rows:
        count = sum(test.p is not None for response in comparison.responses for test in response.tests)
        yield Table(
            f"{where}: each setting minus the paper's, seed by seed: mean difference, 95 % t-interval (not corrected), "
            f"paired t-test, Holm's correction over all {count} tests of this table.",
            ("score", "setting", "difference", "95 %", "p", "Holm p", "seeds", "clusters used, paper's"),
            tuple((*row, used) for row, used in zip(rows, _used(comparison), strict=True)),
        )


def _used(comparison: Comparison) -> Iterator[str]:
    for response in comparison.responses:
        used = response.clusters.mean()
        for test in response.tests:
            both = [used.get(test.setting, math.nan), used.get(comparison.paper, math.nan)]
            yield f"{both[0]:.1f}, {both[1]:.1f}" if np.isfinite(both).all() else "not recorded"


def _components_row(response: Response) -> tuple[str, ...]:
    found = response.components
    search = response.search
    return (
        response.label,
        "–" if found.seed is None else f"{found.seed:.3f}",
        "–" if found.setting is None else f"{found.setting:.3f}",
        found.reason if found.share is None else f"{100 * found.share:.0f} %",
        "–" if found.low is None or found.high is None else f"{100 * found.low:.0f} to {100 * found.high:.0f} %",
        "–" if search is None else f"{100 * search.share:.0f} % ({100 * search.low:.0f} to {100 * search.high:.0f} %)",
    )


def _test_row(response: Response, test: Paired) -> tuple[str, ...]:
    return (
        response.label,
        test.setting,
        test.reason if test.difference is None else f"{test.difference:+.3f}",
        "–" if test.low is None else f"{test.low:+.3f} to {test.high:+.3f}",
        (test.reason if test.difference is not None else "–") if test.p is None else f"{test.p:.2g}",
        "–" if test.holm is None else f"{test.holm:.2g}",
        str(test.n),
    )
