"""Does a top setting do better than with the paper's temperature? Retrains a study's top settings on fresh seeds.

    ray job submit --working-dir . -- python studies/confirm.py /abs/results/NAME --data-root /abs/data --seeds 5

The settings are chosen by the study's objective, which never reads a label. Each is trained as it is and with the
paper's temperature, on the same seeds, none of which the study has used: all other settings are the same on both
sides, so that a difference is due to the temperature. The test split is read once, at the end of each training. The
script writes STORAGE/NAME-confirm/ with trials.parquet, whose rows have the arm "confirm", and history.parquet, for
`catuvac report STORAGE/NAME STORAGE/NAME-confirm`.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import tyro
from options import ClusterFlags, GpuFlags

from catuvac import artifacts, results
from catuvac.config import PAPER_PROTOCOL, Config, ConfigError
from catuvac.errors import CatuvacError, guarded
from catuvac.experiments import options
from catuvac.experiments.base import AT_PAPER, DESIGN, settings_of
from catuvac.io import expand_home

if TYPE_CHECKING:
    from catuvac.experiments.comparison import Comparison

PAPER = {name: PAPER_PROTOCOL[name] for name in ("tau_start", "tau_end", "tau_schedule")}  # the paper's temperature
COLUMNS = {  # of the printed table; a column without values is left out
    "objective": "objective",
    "val/acc": "ACC val",
    "test/acc": "ACC test",
    "val/nmi": "NMI val",
    "test/nmi": "NMI test",
    "test/ami": "AMI test",
    "test/clusters_used": "clusters used",
    "test/silhouette_p": "Silhouette_p",
}


@dataclass(frozen=True)
class Setting:
    """One setting to train on every seed."""

    name: str  # top1, top1-paper, top2, …
    config: Config  # its seed is ignored
    number: int | None = None  # the study's trial that it comes from
    objective: float | None = None  # that trial's; None for a setting with the paper's temperature

    def __str__(self) -> str:
        training, model = self.config.training, self.config.model
        source = "" if self.objective is None else f"trial {self.number}, objective {self.objective:.3f}: "
        return (
            f"{source}τ {training.tau_start:.2f}→{training.tau_end:.2f} {training.tau_schedule}, "
            f"β {model.beta:.3g}, d {model.latent_dim}"
        )


@dataclass(kw_only=True)
class Confirm(ClusterFlags, GpuFlags):
    """Train the top settings of a finished study on fresh seeds, each also with the paper's temperature."""

    results: tyro.conf.Positional[Path]
    """folder of the finished study: STORAGE/NAME"""
    top: int = 3
    """number of settings to take from the study, the best by its objective"""
    seeds: int = 5
    """number of seeds, the same ones for every setting"""
    epochs: int | None = None
    """epochs of each training; default: the study's"""
    storage: str = ""
    """folder of all studies, shared by every node, or s3://… or gs://…; default: the folder that contains the study"""
    name: str = ""
    """name of this comparison and of its folder in storage; default: the study's name and -confirm"""
    keep_top: int = 0
    """number of finished trainings, those with the best objective, that keep their checkpoints; 0: all"""

    def run(self) -> None:
        began = time.monotonic()
        for flag in ("top", "seeds"):
            if getattr(self, flag) < 1:
                raise ConfigError(f"{flag} must be at least 1, got {getattr(self, flag)}")
        study = options.absolute(self.results, "RESULTS")
        design, trials = finished_study(study)
        settings = choose(trials, Config().with_settings(design["config"]), top=self.top, epochs=self.epochs)
        seeds = fresh_seeds(design, trials, count=self.seeds)

        # Ray and torch take seconds to import; errors in flags should not wait for them.
        from catuvac.experiments.base import duration
        from catuvac.experiments.comparison import Cell, Comparison
        from catuvac.tune import driver, preflight

        base = settings[0].config
        prepared = options.prepare(base, data_root=self.data_root, cache_dir=self.cache_dir)
        grid = Comparison(
            name=self.name or f"{study.name}-confirm",
            # All settings of a seed are adjacent: an interrupted run leaves complete pairs.
            cells=tuple(
                Cell(
                    setting.config.model.method,
                    setting.config.with_settings({"seed": seed}),
                    prepared,
                    setting=setting.name,
                )
                for seed in seeds
                for setting in settings
            ),
            arm="confirm",
            objectives=tuple(design["objectives"]),
            margin=design.get("margin"),
            gpus_per_trial=self.gpus_per_trial,
            keep_top=self.keep_top,
            **self.resources(str(study.parent)),
        )
        driver.check_folder(grid, resume=self.resume)
        print(f"confirm    {grid.folder}{f', trials in {grid.remote}' if grid.remote else ''}")
        for setting in settings:
            print(f"{setting.name:<11}{setting}")
        names = {setting.name for setting in settings}
        tops = sum(setting.objective is not None for setting in settings)
        if tops < self.top:
            print(f"note       {study.name} has {tops} complete settings, not {self.top}")
        alone = [s.name for s in settings if s.objective is not None and f"{s.name}{AT_PAPER}" not in names]
        if alone:
            print(
                f"note       {', '.join(alone)}: already at the paper's temperature, or without one; nothing to compare"
            )
        print(f"seeds      {seeds[0]} to {seeds[-1]}, {base.training.epochs} epochs each", flush=True)
        driver.connect()
        for line in preflight.preflight(grid, config=base, features=prepared, estimate=self.dry_run):
            print(line, flush=True)
        if self.dry_run:
            return
        driver.run_grid(grid, resume=self.resume)
        _print(results.read_trials(grid.folder), grid)
        print(f"wall time  {duration(time.monotonic() - began)}")
        print(f"trials     {grid.folder / results.TRIALS}")


def finished_study(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Reads a study's design and its trials.

    Raises:
        CatuvacError: there is no study, or it is of another kind or version, or not finished.
    """
    if not (folder / DESIGN).exists():
        raise CatuvacError(f"no study in {folder}; give the folder of a finished one, such as results/NAME")
    design = artifacts.read_json(folder / DESIGN, {"design": dict})["design"]
    try:
        planned, name = int(design["trials"]), design["objectives"][0]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CatuvacError(
            f"{folder} contains no search of this version of catuvac; give a study of tau_sweep.py"
        ) from error
    if not (folder / results.TRIALS).exists():
        raise CatuvacError(f"study {folder} has no trials yet; finish it with --resume")
    trials = results.read_trials(folder)
    if len(trials) < planned:
        raise CatuvacError(
            f"study {folder} is not finished: {planned - len(trials)} of {planned} trials are missing; "
            "continue it with --resume"
        )
    if not ((trials["status"] == "complete") & (trials["arm"] != "paper") & trials["objective"].notna()).any():
        raise CatuvacError(f"no trial of {folder} is complete with an objective {name}; there is nothing to confirm")
    return design, trials


def choose(trials: pd.DataFrame, base: Config, *, top: int, epochs: int | None = None) -> list[Setting]:
    """Returns the top settings by objective, each followed by its twin with the paper's temperature.

    Args:
        trials: trials of a study; only complete ones are considered, and labels never are.
        base: values of the settings that the study did not search.
        top: maximum number of settings; trials that differ only in their seed count as one, the best of them.
        epochs: replaces the study's.

    Returns:
        `top1`, `top1-paper`, `top2`, …; a setting has no twin if it already has the paper's temperature, or if its
        estimator is "exact", which has no temperature.
    """
    changes = {} if epochs is None else {"epochs": epochs}
    searched = trials[trials["arm"] != "paper"]  # the paper's protocol differs in more than its temperature
    complete = searched[(searched["status"] == "complete") & searched["objective"].notna()]
    tops: dict[str, Setting] = {}
    for row in results.records(complete.sort_values("objective", ascending=False, kind="stable")):
        # Blocks of seeds also differ in their split; a setting is the same in every block.
        seeds = {"seed": base.training.seed, "split_seed": base.split.split_seed}
        config = base.with_settings({**settings_of(row), **changes, **seeds})
        if config.hash() not in tops and len(tops) < top:
            name = f"top{len(tops) + 1}"
            tops[config.hash()] = Setting(name, config, int(row["number"]), float(row["objective"]))
    settings = []
    for setting in tops.values():
        settings.append(setting)
        twin = setting.config.with_settings(PAPER)
        if twin != setting.config and twin.model.y_estimator != "exact":
            settings.append(Setting(f"{setting.name}{AT_PAPER}", twin))
    return settings


def fresh_seeds(design: dict[str, Any], trials: pd.DataFrame, *, count: int) -> list[int]:
    """Returns seeds above all those that the study has, or might have, trained with."""
    first = max(design["seed"] + design["trials"], int(trials["seed"].max()) + 1)
    return list(range(first, first + count))


def summarise(trials: pd.DataFrame, settings: dict[str, str]) -> pd.DataFrame:
    """Returns one row per setting: `complete`, `trainings`, and `NAME` and `NAME sd` of every score over complete ones.

    Args:
        trials: trials of the comparison.
        settings: name of the setting, by trial_id.
    """
    rows = []
    for name in dict.fromkeys(settings.values()):
        trainings = trials[trials["trial_id"].map(settings) == name]
        complete = trainings[trainings["status"] == "complete"]
        row: dict[str, Any] = {"setting": name, "complete": len(complete), "trainings": len(trainings)}
        for column in COLUMNS:
            values = complete[column].astype(float).dropna() if column in complete else pd.Series(dtype=float)
            row |= {column: values.mean(), f"{column} sd": values.std()}  # of a sample; NaN for a single value
        rows.append(row)
    return pd.DataFrame(rows)


def _print(trials: pd.DataFrame, grid: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    summary = summarise(trials, {cell.trial_id: cell.setting for cell in grid.cells})
    shown = [column for column in COLUMNS if summary[column].notna().any()]
    table = Table("setting", "complete", *(COLUMNS[column] for column in shown))
    for row in summary.to_dict("records"):
        scores = (_spread(row[column], row[f"{column} sd"]) for column in shown)
        table.add_row(row["setting"], f"{row['complete']} of {row['trainings']}", *scores)
    for column in table.columns:
        column.no_wrap = True
    Console(width=140).print(table)
    print(
        f"Mean ± standard deviation over the complete trainings; objective: {grid.objectives[0]}, label-free.\n"
        "The best of many trials in a study is expected to score lower here. A high Silhouette_p means little\n"
        f"if few of the {grid.cells[0].config.model.n_clusters} clusters are used. "
        "Seeds are shared: `catuvac report` compares each setting with its twin seed by seed."
    )


def _spread(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(Confirm, args=expand_home(sys.argv[1:]), description=__doc__).run()))
