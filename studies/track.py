"""Exports a study to an experiment tracker, MLflow or Weights & Biases, or to DeepCAVE.

    python studies/track.py results/NAME --to mlflow            # then: mlflow ui --backend-store-uri sqlite:///mlruns.db
    python studies/track.py results/NAME --to wandb --at DIR    # offline; then: wandb sync DIR/wandb/offline-run-*
    python studies/track.py results/NAME --to deepcave --at DIR # then: open DIR in DeepCAVE

Each trial becomes one run with its settings, its evaluations by epoch and its last scores; in MLflow the runs are
children of a run of the study, in W&B they form its group. The script reads the study's tables, so that it can be
called during a study, again at its end, and long afterwards: exported trials are skipped, and so are those that ended
in an error, which `--resume` repeats. Needs the extra `trackers`.
For DeepCAVE it writes two CSV files anew each time, and needs nothing; DeepCAVE itself needs Python below 3.11.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import tyro
from rich.console import Console
from rich.progress import track

from catuvac import results
from catuvac.config import OMITTED
from catuvac.errors import CatuvacError, first_line, guarded
from catuvac.experiments.base import is_folder_name, settings_of
from catuvac.io import expand_home, write_text

Tracker = Literal["mlflow", "wandb", "deepcave"]
STUDY, TRIAL = "catuvac.study", "catuvac.trial"  # tags that identify exported runs
SEEDS = ("seed", "split_seed")  # settings that are no hyperparameters
SCORES = {  # objectives for DeepCAVE, by their names there
    "objective": "objective",
    "ami": "val/ami",
    "silhouette_x": "val/silhouette_x",
    "silhouette_p": "val/silhouette_p",
    "clusters_used": "val/clusters_used",
}
STATUS = {"complete": "success", "stopped": "aborted", "diverged": "crashed", "error": "crashed"}  # DeepCAVE's
EXPORTED = "exported"  # file in the folder of a W&B run that is complete
BATCH = 1000  # maximum number of metrics in one MLflow call


@dataclass(frozen=True)
class Trial:
    """A trial, as the tables have it.

    Attributes:
        row: its row of `trials.parquet`.
        evaluations: its rows of `history.parquet`, by epoch.
    """

    row: dict[str, Any]
    evaluations: list[dict[str, Any]]

    @property
    def is_final(self) -> bool:
        """Whether a resumed study keeps the trial as it is."""
        return bool(self.row["status"] != "error")

    @property
    def name(self) -> str:
        """The run's name, such as "trial 7"."""
        return f"trial {self.row['number']}"

    @property
    def settings(self) -> dict[str, Any]:
        """Arm, status and every setting that has a value."""
        return {"arm": self.row["arm"], "status": self.row["status"], **settings_of(self.row)}

    @property
    def scores(self) -> dict[str, float]:
        """The last scores, including the test split's if it was read."""
        return numbers({name: value for name, value in self.row.items() if "/" in name or name == "objective"})


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers in a row, without its settings."""
    kept = {
        name: value for name, value in row.items() if isinstance(value, int | float) and not name.startswith("config/")
    }
    return {name: float(value) for name, value in kept.items()}


def to_mlflow(study: str, trials: list[Trial], at: str) -> int:
    """Adds missing trials to the experiment "catuvac" of a tracking server or file; returns their number."""
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    client = mlflow.MlflowClient(tracking_uri=at or "sqlite:///mlruns.db")
    known = client.get_experiment_by_name("catuvac")
    experiment = known.experiment_id if known else client.create_experiment("catuvac")
    ours = f"tags.`{STUDY}` = '{study}'"

    def runs(condition: str) -> list[Any]:
        return list(client.search_runs([experiment], f"{ours} and {condition}", max_results=50_000))

    parents = runs(f"tags.`{TRIAL}` = ''")
    parent = parents[0] if parents else client.create_run(experiment, run_name=study, tags={STUDY: study, TRIAL: ""})
    sent = {run.data.tags[TRIAL] for run in runs("attributes.status = 'FINISHED'")}
    missing = [trial for trial in trials if trial.is_final and trial.row["trial_id"] not in sent]
    for trial in shown(missing, "MLflow"):
        start = int(datetime.fromisoformat(trial.row["started_at"]).timestamp() * 1000)
        tags = {STUDY: study, TRIAL: trial.row["trial_id"], "mlflow.parentRunId": parent.info.run_id}
        run = client.create_run(experiment, run_name=trial.name, start_time=start, tags=tags).info.run_id
        metrics = [
            Metric(name, value, start, int(evaluation["epoch"]))
            for evaluation in trial.evaluations
            for name, value in numbers(evaluation).items()
        ]
        metrics += [Metric(name, value, start, int(trial.row["epochs"] or 0)) for name, value in trial.scores.items()]
        params = [Param(name, str(value)) for name, value in trial.settings.items()]
        client.log_batch(run, params=params, tags=[RunTag("mlflow.source.git.commit", str(trial.row["revision"]))])
        for first in range(0, len(metrics), BATCH):
            client.log_batch(run, metrics=metrics[first : first + BATCH])
        client.set_terminated(run, end_time=start + int(1000 * (trial.row["wall_seconds"] or 0)))
    client.set_terminated(parent.info.run_id)
    return len(missing)


def to_wandb(study: str, trials: list[Trial], at: str) -> int:
    """Writes missing trials to the project "catuvac", grouped by study, for `wandb sync`; returns their number."""
    import wandb

    folder = Path(at or ".")
    folder.mkdir(parents=True, exist_ok=True)
    runs = {path.name.split("-", 3)[3]: path for path in (folder / "wandb").glob("offline-run-*-*")}  # …-TIME-ID
    identity = {trial.row["trial_id"]: f"{study}.{trial.row['trial_id']}" for trial in trials}
    sent = {name for name, path in runs.items() if (path / EXPORTED).exists()}
    missing = [trial for trial in trials if trial.is_final and identity[trial.row["trial_id"]] not in sent]
    for trial in shown(missing, "W&B"):
        if (left := runs.get(identity[trial.row["trial_id"]])) is not None:
            shutil.rmtree(left)  # of an export that was interrupted
        run = wandb.init(
            project="catuvac",
            group=study,
            name=trial.name,
            id=identity[trial.row["trial_id"]],
            config=trial.settings,
            dir=folder,
            mode="offline",
            settings=wandb.Settings(console="off", silent=True),
        )
        for evaluation in trial.evaluations:
            run.log(numbers(evaluation), step=int(evaluation["epoch"]))
        run.summary.update(trial.scores)
        own = Path(run.dir).parent
        run.finish()
        (own / EXPORTED).touch()
    return len(missing)


def to_deepcave(study: str, trials: list[Trial], at: str) -> int:
    """Writes the search's trials in DeepCAVE's format of data frames, to a folder of the study; returns their number.

    Hyperparameters are the settings that differ between trials, except seeds; all objectives are maximised.
    """
    if not is_folder_name(study):
        raise CatuvacError(f"{study!r} is not a folder name, so the study cannot be exported under it")
    searched = [trial for trial in trials if trial.row["arm"] not in ("paper", "confirm")]
    if not searched:
        raise CatuvacError(f"study {study} has no trial of a search")
    settings = pd.DataFrame([{**OMITTED, **settings_of(trial.row)} for trial in searched])
    names = [name for name in settings if name not in SEEDS and settings[name].nunique(dropna=False) > 1]
    rows: list[dict[str, Any]] = []
    for trial, values in zip(searched, settings[names].to_dict("records"), strict=True):
        began = datetime.fromisoformat(trial.row["started_at"]).timestamp()
        rows.append(
            {
                "config_id": trial.row["number"],
                **{str(name): value for name, value in values.items()},
                **{f"metric:{name} [-inf; +inf] (maximize)": trial.row.get(column) for name, column in SCORES.items()},
                "budget": trial.row["epochs"],
                "seed": trial.row["seed"],
                "start_time": began,
                "end_time": began + (trial.row["wall_seconds"] or 0.0),
                "status": STATUS[trial.row["status"]],
            }
        )
    folder = Path(at or "deepcave") / study
    folder.mkdir(parents=True, exist_ok=True)
    space = [_dimension(settings[name]) for name in names]
    for name, table in (("configspace.csv", space), ("trials.csv", rows)):
        write_text(folder / name, pd.DataFrame(table).to_csv(index=False))
    return len(rows)


def _dimension(values: pd.Series) -> dict[str, Any]:
    """Describes a varied setting as a row of DeepCAVE's configspace.csv."""
    known = values.dropna()
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        items = {f"item_{number}": str(value) for number, value in enumerate(sorted(map(str, known.unique())))}
        return {"name": values.name, "type": "categorical", "default": items["item_0"], "ordered": False, **items}
    low, high = known.min(), known.max()
    return {
        "name": values.name,
        "type": "integer" if all(isinstance(value, int) for value in known) else "float",
        "lower": low,
        "upper": high,
        "log": bool(low > 0 and high >= 10 * low),
        "distribution": "uniform",
        "default": low,
    }


TRACKERS: dict[Tracker, Callable[[str, list[Trial], str], int]] = {
    "mlflow": to_mlflow,
    "wandb": to_wandb,
    "deepcave": to_deepcave,
}


def shown(trials: list[Trial], tracker: str) -> Iterator[Trial]:
    """Yields the trials, with a progress bar on standard error."""
    yield from track(trials, tracker, console=Console(stderr=True), transient=True)


def read(folder: Path) -> tuple[str, list[Trial]]:
    """Returns a study's name and its trials, in order.

    Raises:
        CatuvacError: a table is missing or damaged.
    """
    trials = results.read_trials(folder)
    history = results.read_history(folder) if (folder / results.HISTORY).exists() else pd.DataFrame({"trial_id": []})
    by_trial: dict[str, list[dict[str, Any]]] = {}
    for row in results.records(history):
        by_trial.setdefault(row["trial_id"], []).append(row)
    rows = results.records(trials.sort_values("number"))
    return str(trials["study"].iloc[0]), [Trial(row, by_trial.get(row["trial_id"], [])) for row in rows]


@dataclass(kw_only=True)
class Track:
    """Export a study's trials to a tracker."""

    study: tyro.conf.Positional[Path]
    """folder of the study, results/NAME"""
    to: Tracker = "mlflow"
    """tracker to export to"""
    at: str = ""
    """mlflow: tracking URI, default sqlite:///mlruns.db; wandb: folder, default the current one; deepcave: folder of
    studies, default deepcave"""

    def run(self) -> None:
        study, trials = read(self.study)
        try:
            new = TRACKERS[self.to](study, trials, self.at)
        except ImportError as error:
            raise CatuvacError(f"{error.name} is not installed: pip install 'catuvac[trackers]'") from error
        except Exception as error:  # their error classes have no common base
            if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "wandb"):
                raise
            raise CatuvacError(f"cannot export to {self.to}: {first_line(error)}") from error
        print(f"{self.to}     {new} of {len(trials)} trials of {study} exported")


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(Track, args=expand_home(sys.argv[1:]), description=__doc__).run()))
