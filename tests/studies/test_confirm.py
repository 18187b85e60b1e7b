"""Which settings are confirmed, on planted tables; and the whole of `studies/confirm.py` on a finished study."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confirm
import pandas as pd
import pytest

from catuvac import results
from catuvac.config import Config
from catuvac.errors import CatuvacError
from catuvac.experiments.base import columns


def row(number: int, config: Config, objective: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "study": "a",
        "trial_id": f"t{number}",
        "number": number,
        "method": "cat_uvac",
        "arm": "random",
        "status": "complete",
        "objective": objective,
        "started_at": "2026-01-01T00:00:00+00:00",
        **columns(config),
        **changes,
    }


def plant(folder: Path, base: Config, rows: list[dict[str, Any]], *, trials: int) -> Path:
    for made in rows:
        results.append_trial(folder, made)
    design = {"config": base.flat(), "space": {"tau_start": [0.5, 5.0]}, "trials": trials, "seed": 7}
    record = {"design": {**design, "margin": 0.02, "objectives": ["silhouette_x", "mutual_information"]}}
    (folder / "study.json").write_text(json.dumps(record))
    return folder


def searched(base: Config, number: int, beta: float) -> Config:
    return base.with_settings({"tau_start": 2.0, "tau_end": 0.3, "beta": beta, "seed": 7 + number})


@pytest.fixture
def study(tmp_path: Path, tiny_config: Config) -> Path:
    """Five trials: labels prefer the worst; two of one setting; one diverged."""
    rows = [
        row(0, searched(tiny_config, 0, 0.1), 0.2, **{"val/acc": 0.9}),
        row(1, searched(tiny_config, 1, 0.2), 0.6, **{"val/acc": 0.1}),
        row(2, searched(tiny_config, 2, 0.2), 0.5, **{"val/acc": 0.2}),
        row(3, searched(tiny_config, 3, 0.4), 0.4),
        row(4, searched(tiny_config, 4, 0.8), None, status="diverged"),
    ]
    return plant(tmp_path / "results" / "a", tiny_config, rows, trials=5)


class TestChoice:
    def test_the_objective_chooses_and_seeds_make_no_setting(self, study: Path, tiny_config: Config) -> None:
        _, trials = confirm.finished_study(study)
        found = confirm.choose(trials, tiny_config, top=2)
        assert [(s.name, s.number, s.objective) for s in found] == [
            ("top1", 1, 0.6),
            ("top1-paper", None, None),
            ("top2", 3, 0.4),
            ("top2-paper", None, None),
        ]
        assert [s.config.model.beta for s in found] == [0.2, 0.2, 0.4, 0.4]

    def test_a_training_by_the_papers_protocol_is_no_setting_of_the_search(
        self, study: Path, tiny_config: Config
    ) -> None:
        results.append_trial(study, row(5, searched(tiny_config, 5, 0.9), 0.9, arm="paper"))
        _, trials = confirm.finished_study(study)
        assert [s.number for s in confirm.choose(trials, tiny_config, top=1)] == [1, None]

    def test_a_setting_and_its_twin_differ_in_the_temperature_alone(self, study: Path, tiny_config: Config) -> None:
        _, trials = confirm.finished_study(study)
        top, twin = confirm.choose(trials, tiny_config, top=1, epochs=9)
        differ = {name for name, value in top.config.flat().items() if twin.config.flat()[name] != value}
        assert differ == {"tau_start", "tau_end"}
        training = twin.config.training
        assert (training.tau_start, training.tau_end, training.tau_schedule) == (1.0, 0.5, "exponential")
        assert (training.epochs, twin.config.model.beta) == (9, 0.2)

    def test_a_setting_without_a_temperature_has_no_twin(self, study: Path, tiny_config: Config) -> None:
        _, trials = confirm.finished_study(study)
        trials["config/y_estimator"] = "exact"
        found = confirm.choose(trials, tiny_config, top=2)
        assert [s.name for s in found] == ["top1", "top2"]

    def test_no_more_than_there_are(self, study: Path, tiny_config: Config) -> None:
        _, trials = confirm.finished_study(study)
        assert [s.name for s in confirm.choose(trials, tiny_config, top=8)] == [
            f"top{n}{end}" for n in (1, 2, 3) for end in ("", "-paper")
        ]

    def test_a_column_that_a_trial_lacks_is_the_studys_own_setting(self, study: Path, tiny_config: Config) -> None:
        _, trials = confirm.finished_study(study)
        trials["config/beta"] = pd.array([None] * 5, dtype="Float64")
        top, *_ = confirm.choose(trials.drop(columns="config/tau_end"), tiny_config, top=1)
        assert (top.config.model.beta, top.config.training.tau_end) == (tiny_config.model.beta, 0.5)

    def test_the_papers_own_temperature_is_not_trained_twice(self, tmp_path: Path, tiny_config: Config) -> None:
        study = plant(tmp_path, tiny_config, [row(0, tiny_config.with_settings({"seed": 7}), 0.2)], trials=1)
        _, trials = confirm.finished_study(study)
        assert [s.name for s in confirm.choose(trials, tiny_config, top=2)] == ["top1"]

    def test_seeds_that_the_study_has_not_used(self, study: Path, tiny_config: Config) -> None:
        design, trials = confirm.finished_study(study)
        assert confirm.fresh_seeds(design, trials, count=2) == [12, 13]
        results.append_trial(study, row(9, searched(tiny_config, 9, 0.1), 0.1))  # Optuna was asked more often
        assert confirm.fresh_seeds(design, results.read_trials(study), count=2) == [17, 18]


class TestStudies:
    def test_one_that_is_not_finished(self, tmp_path: Path, tiny_config: Config) -> None:
        folder = plant(tmp_path, tiny_config, [row(0, tiny_config, 0.2)], trials=3)
        with pytest.raises(CatuvacError, match="2 of 3 trials are missing; continue it with --resume"):
            confirm.finished_study(folder)

    def test_one_without_a_complete_trial(self, tmp_path: Path, tiny_config: Config) -> None:
        folder = plant(tmp_path, tiny_config, [row(0, tiny_config, None, status="error")], trials=1)
        with pytest.raises(CatuvacError, match=r"no trial of .* is complete with an objective silhouette_x"):
            confirm.finished_study(folder)

    @pytest.mark.parametrize("text", ["{}", "not JSON", '{"design": {"synthetic-k3-uvac-s0": "1234"}}', "[]"])
    def test_what_is_no_search(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "study.json").write_text(text)
        with pytest.raises(CatuvacError, match=r"contains no search of this version|is damaged|another version"):
            confirm.finished_study(tmp_path)

    def test_one_that_has_just_begun(self, tmp_path: Path, tiny_config: Config) -> None:
        plant(tmp_path, tiny_config, [], trials=1)
        with pytest.raises(CatuvacError, match="has no trials yet"):
            confirm.finished_study(tmp_path)


def test_summary_is_over_complete_trainings(tiny_config: Config) -> None:
    rows = [
        row(0, tiny_config, 0.2, **{"test/acc": 0.5}),
        row(1, tiny_config, 0.4, **{"test/acc": 0.7}),
        row(2, tiny_config, None, status="diverged", **{"test/acc": None}),
        row(3, tiny_config, 0.9, **{"test/acc": 0.9}),
    ]
    names = {"t0": "top1", "t1": "top1", "t2": "top1", "t3": "paper", "t4": "paper"}
    found = confirm.summarise(pd.DataFrame(rows), names).set_index("setting")
    assert found.loc["top1", ["complete", "trainings"]].tolist() == [2, 3]
    assert found.loc["top1", ["objective", "test/acc"]].tolist() == pytest.approx([0.3, 0.6])
    assert found.loc["top1", "objective sd"] == pytest.approx(math.sqrt(0.02))
    assert found.loc["paper", "objective"] == 0.9
    assert math.isnan(found.loc["paper", "objective sd"])
    assert found["val/nmi"].isna().all()


def flags_of(study: Path, cache_dir: Path, *flags: str) -> list[str]:
    return [str(study), "--cache-dir", str(cache_dir), *flags]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_finished_study_is_confirmed(
    study: Path, cache_dir: Path, run_script: Callable[..., tuple[int, str, str]], refused: Callable[..., str]
) -> None:
    asked = flags_of(study, cache_dir, "--top", "1", "--seeds", "2")
    code, out, errors = run_script(confirm.Confirm, asked)
    assert code == 0, out + errors
    trials = results.read_trials(study.parent / "a-confirm")
    assert set(trials["trial_id"]) == {
        f"synthetic-k3-{name}-s{seed}" for name in ("top1", "top1-paper") for seed in (12, 13)
    }
    assert set(trials["arm"]) == {"confirm"}
    assert set(trials["status"]) == {"complete"}
    assert set(trials["seed"]) == {12, 13}
    for name in ("objective", "val/acc", "test/acc", "test/nmi", "test/silhouette_p", "test/clusters_used"):
        assert trials[name].astype(float).map(math.isfinite).all(), name
    assert trials["objective"].tolist() == trials["val/objective_silhouette_x"].tolist()
    assert set(trials["config/beta"]) == {0.2}
    assert "top1       trial 1, objective 0.600: τ 2.00→0.30 exponential, β 0.2, d 2" in out
    assert "2 of 2" in out
    assert "Silhouette_p" in out
    assert json.loads((study.parent / "a-confirm" / "study.json").read_text())["design"]["margin"] == 0.02
    code, out, errors = run_script(confirm.Confirm, [*asked, "--resume"])
    assert code == 0, out + errors
    kept = results.read_trials(study.parent / "a-confirm")
    assert kept["wall_seconds"].tolist() == trials["wall_seconds"].tolist()  # not run again
    assert "give another --name" in refused(confirm.Confirm, asked)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--top", "0"], "top must be at least 1, got 0"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--resume"], "nothing to resume"),
        (["--epochs", "0"], "epochs must be at least 1"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(
    flags: list[str], words: str, study: Path, cache_dir: Path, refused: Callable[..., str]
) -> None:
    assert words in refused(confirm.Confirm, flags_of(study, cache_dir, *flags))
    assert not (study.parent / "a-confirm").exists()


def test_no_such_study(tmp_path: Path, cache_dir: Path, refused: Callable[..., str]) -> None:
    errors = refused(confirm.Confirm, flags_of(tmp_path / "b", cache_dir))
    assert errors.startswith(f"error: no study in {tmp_path / 'b'}; give the folder")
