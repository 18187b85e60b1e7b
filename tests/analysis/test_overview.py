"""What was run and which trial is best, in sentences whose numbers are values."""

from __future__ import annotations

from pathlib import Path

from fabricate import study
from planted import falling_with_tau_end, trial

from analysis.sections.overview import section
from analysis.trials import load_all
from catuvac.results import append_trial


def test_trials_are_counted_and_the_best_is_named(tmp_path: Path) -> None:
    found = {each.name: each for each in section(load_all([falling_with_tau_end(tmp_path)])).statements}
    run = str(found["run"])
    assert "9 trials of cat_uvac on synthetic (split: grouped by speaker), K = 5" in run
    assert "6 complete, 1 stopped early, 1 diverged, 1 failed with an error" in run
    assert "trial is number 0 (t00), at 0.900, 5 of 5 clusters used" in str(found["best/synthetic, K = 5"])
    assert "0.60 with the label, 0.10 with speaker" in str(found["follow/synthetic, K = 5"])


def test_a_silhouette_in_p_needs_the_clusters_used(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, **{"val/clusters_used": None}))
    (best,) = [each for each in section(load_all([tmp_path])).statements if each.name.startswith("best/")]
    assert "in p" not in str(best)


def test_every_corpus_has_its_best_trial() -> None:
    both = study(8, corpus="fsdd"), study(8, corpus="urbansound8k", name="other", seed=1)
    names = [name for one in both for name in (each.name for each in section(one).statements)]
    assert {"best/fsdd, K = 10", "best/urbansound8k, K = 10"} <= set(names)


def test_the_papers_protocol_is_said_beside_the_search_and_never_the_best(tmp_path: Path) -> None:
    """Two of its trainings, one undecided, beside a search trial of a lower objective."""
    facts = {"method": "cat_uvac_paper", "arm": "paper", "objective": 0.99}
    append_trial(tmp_path, trial(0, objective=0.2))
    append_trial(tmp_path, trial(1, **facts, **{"val/mutual_information": 0.1, "val/ami": 0.02}))
    append_trial(tmp_path, trial(2, **facts, **{"val/mutual_information": 1.5, "val/ami": 0.5}))
    found = {each.name: each for each in section(load_all([tmp_path])).statements}
    paper = found["paper/synthetic-k5"].values
    assert (paper["n"], paper["decided"], paper["low"], paper["high"]) == (2, 1, 0.02, 0.5)
    assert found["best/synthetic, K = 5"].values["number"] == 0


def test_an_undecided_best_trial_is_said_to_be(tmp_path: Path) -> None:
    append_trial(tmp_path, trial(0, **{"val/y_decided": False}))
    (best,) = [each for each in section(load_all([tmp_path])).statements if each.name.startswith("best/")]
    assert "undecided" in str(best)


def test_no_trial_and_no_finished_trial(tmp_path: Path) -> None:
    assert str(section(study(0)).statements[0]) == "No trial has been recorded yet."
    append_trial(tmp_path, trial(0, status="error", objective=None))
    assert "no trial completed" in str(section(load_all([tmp_path])).statements[-1])
