"""What branches tell, on planted tables with known answers; and that no row of them enters anything else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checks import rendered, texts
from fabricate import K, study
from numpy.typing import NDArray
from scipy import stats as distributions

from analysis import report
from analysis.questions import effects
from analysis.questions.branches import PARENT, Panel, panels, power, read_partitions
from analysis.questions.effects import SEED_SD, Plan
from analysis.section import Group
from analysis.sections import branches, selection, temperature
from analysis.trials import Study, load_all
from catuvac import results
from catuvac.errors import CatuvacError

SHARES, ENDS, CLIPS = (0.0, 0.4, 0.8), (0.1, 0.3, 1.0), 400
PLANS = {"branched": Plan("tau_ratio", 0.03, True)}
Partitions = dict[tuple[str, str], NDArray[np.int64]]


def branched(
    *, seeds: int = 6, early: float = 0.0, late: float = 0.0, moved: float = 0.0, name: str = "branched", **columns: Any
) -> tuple[Study, Partitions]:
    """A study whose highest tau_end is better by `early` at share 0, falling to `late` at the last share.

    Seeds differ far more than branches, as they do, so that only the pairing can see it. `moved` is the share of clips
    that a step in tau_end takes to another cluster at share 0; at the last share there are none.
    """
    rng = np.random.default_rng(0)
    rows, partitions = [], {}
    for seed in range(seeds):
        level, truth = rng.normal(0.6, 0.1), rng.integers(0, K, CLIPS)
        for share in SHARES:
            size = early + (late - early) * share / SHARES[-1]
            for rank, end in enumerate(ENDS):
                trial = f"share{share:g}-tau{end:g}-s{seed}"
                rows.append(
                    {
                        "trial_id": trial,
                        "seed": seed,
                        "config/seed": seed,
                        "config/tau_end": end,
                        "branch/share": share,
                        "branch/epoch": 15 + 15 * share,
                        "branch/tau": 1.0,
                        "branch/parent_tau_end": 1.0,
                        "val/ami": level + size * rank / 2 + rng.normal(0, 0.004),
                        "val/confidence": 0.9 - 0.1 * rank + rng.normal(0, 0.004),
                        "val/clusters_used": float(K),
                    }
                )
                own, gone = truth.copy(), rng.random(CLIPS) < moved * rank * (1 - share / SHARES[-1])
                own[gone] = rng.integers(0, K, int(gone.sum()))
                partitions[name, trial] = np.stack([truth, own])
    planted = {column: [row[column] for row in rows] for column in rows[0]}
    world = {**planted, "config/tau_start": 1.0, **columns}
    made = study(len(rows), arm="branch", name=name, planted=lambda *_: world)
    return made, partitions


def only(made: Study, partitions: Partitions | None = None) -> Panel:
    (panel,) = panels(made, PLANS, partitions or {})
    return panel


@pytest.mark.parametrize(
    ("early", "late", "words"),
    [(0.08, 0.0, ("matters", "negligible")), (0.0, -0.08, ("negligible", "matters")), (0.0, 0.0, ("negligible",) * 2)],
)
def test_a_planted_effect_is_found_at_its_share_whatever_the_seeds_do(
    early: float, late: float, words: tuple[str, str]
) -> None:
    panel = only(branched(early=early, late=late)[0])
    assert [share.share for share in panel.shares] == list(SHARES)
    for share, true, word in zip((panel.shares[0], panel.shares[-1]), (early, late), words, strict=True):
        effect = share.effect("val/ami")
        assert effect is not None
        assert effect.contrast is not None
        assert effect.contrast.low < true < effect.contrast.high
        assert effect.contrast.verdict == word
        assert effect.contrast.level == pytest.approx(1 - 0.05 / 4)
        assert (effect.contrast.n, share.tau_ends) == (6, ENDS)


def test_sharpening_is_an_effect_of_its_own_and_its_interval_is_wider() -> None:
    last = only(branched()[0]).shares[-1]
    confidence = last.effect("val/confidence")
    assert confidence is not None
    assert confidence.contrast is not None
    assert confidence.contrast.low < -0.2 < confidence.contrast.high
    assert confidence.contrast.level > 0.99
    assert confidence.means == pytest.approx((0.9, 0.8, 0.7), abs=0.01)


def test_what_never_differs_has_no_interval_and_says_why() -> None:
    used = only(branched()[0]).shares[0].effect("val/clusters_used")
    assert used is not None
    assert used.contrast is None
    assert "same difference of +0.000" in used.reason


def test_siblings_that_part_early_end_further_apart() -> None:
    panel = only(*branched(moved=0.2))
    first, last = panel.shares[0], panel.shares[-1]
    assert first.agreement is not None
    assert first.agreement[0] < 0.8
    assert last.siblings == (1.0,) * 6
    assert last.agreement == (1.0, 1.0, 1.0)
    assert panel.later is not None
    assert panel.later.value == pytest.approx(1 - first.agreement[0])
    assert panel.later.verdict == "matters"
    parent = first.effect(PARENT)
    assert parent is not None
    assert parent.means[0] == 1.0 > parent.means[1] > parent.means[2]


def test_a_seed_without_all_of_its_branches_is_no_pair() -> None:
    made, partitions = branched(seeds=4)
    lost = made.trials["trial_id"] == "share0-tau1-s2"
    cut = replace(made, trials=made.trials.assign(status=made.trials["status"].mask(lost, "diverged")))
    panel = only(cut, partitions)
    assert panel.shares[0].seeds == (0, 1, 3)
    assert panel.shares[1].seeds == (0, 1, 2, 3)
    assert panel.later is not None or panel.reason


def test_without_labels_the_primary_outcome_reads_none() -> None:
    n = 6 * len(SHARES) * len(ENDS)
    panel = only(branched(**{"val/ami": None, "val/invariant_information": np.linspace(0.4, 0.6, n)})[0])
    assert panel.outcome == "val/invariant_information"
    assert panel.shares[0].effect("val/ami") is None


def test_a_sentence_is_written_from_its_numbers() -> None:
    made, partitions = branched(early=0.08, moved=0.2)
    section = branches.section(made, PLANS, partitions)
    assert section is not None
    said = texts(section)
    assert rendered(section) == 1
    assert len(section.headline) == 3
    panel = only(made, partitions)
    first = panel.shares[0].effect("val/ami")
    assert first is not None
    assert first.contrast is not None
    assert f"{first.contrast.low:+.3f} to {first.contrast.high:+.3f}" in said["branches/fsdd-k-10/0"]
    last = panel.shares[-1].effect("val/ami")
    assert last is not None
    assert last.contrast is not None
    assert last.contrast.verdict == "negligible"
    assert f"{last.contrast.detectable:.3f}" in said["branches/fsdd-k-10/0.8"]  # a null has it beside it


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_and_no_clusters_are_sentences(seeds: int) -> None:
    section = branches.section(branched(seeds=seeds)[0], PLANS, {})
    assert section is not None
    assert texts(section)
    assert rendered(section) == 1


def test_seeds_with_one_branch_each_have_a_page_without_a_figure() -> None:
    made, _ = branched(seeds=2)
    kept = made.trials["config/tau_end"] == made.trials["seed"].map({0: 0.1, 1: 1.0})
    section = branches.section(replace(made, trials=made.trials[kept]), PLANS, {})
    assert section is not None
    assert texts(section)
    assert not any(part.drawings for part in section.parts if isinstance(part, Group))


def test_a_study_of_branches_alone_is_said_to_have_trials() -> None:
    for module in (temperature, selection):
        said = module.section(branched()[0])
        assert "all trials of Cat. UVAC are branches" in "".join(p.caption for p in said.parts if isinstance(p, Group))


def test_there_is_no_section_without_branches() -> None:
    assert branches.section(study(8), {}, {}) is None


def test_branches_change_nothing_of_what_is_said_of_a_search() -> None:
    made = study(30)
    both = replace(made, trials=pd.concat([made.trials, branched(early=0.9)[0].trials], ignore_index=True))
    assert effects.panels(both, {}) == effects.panels(made, {})
    for module in (temperature, selection):
        assert [str(s) for s in module.section(both).statements] == [str(s) for s in module.section(made).statements]
    assert len(both.independent) == len(made.independent) == 30
    assert list(both.panels()) == list(made.panels())


def test_power_is_of_the_corrected_interval() -> None:
    tail = 1 - 0.05 / 4 / 2  # three shares, and the change of the siblings
    detectable = (distributions.t.ppf(tail, 4) + distributions.t.ppf(0.8, 4)) * SEED_SD / math.sqrt(5)
    assert f"5 seeds detect an effect of tau_end of {detectable:.3f} AMI" in power(5, 3, 0.03)
    assert "cannot show" in power(5, 3, 0.03)
    assert "can show" in power(20, 3, 0.03)


def write(folder: Path, made: Study, partitions: Partitions) -> Path:
    for row in results.records(made.trials.drop(columns="config/tau_mean")):
        results.append_trial(folder, row)
    (folder / "study.json").write_text('{"design": {"margin": 0.07}}')
    (folder / "partitions").mkdir()
    for (_, trial), array in partitions.items():
        np.savez(folder / "partitions" / f"{trial}.npz", clusters=array)
    return folder


def test_the_page_of_branches_opens_with_them_and_reads_their_margin(tmp_path: Path) -> None:
    made, partitions = branched(seeds=2, moved=0.1)
    folder = write(tmp_path / "branched", made, partitions)
    found = read_partitions(folder)
    assert found.keys() == partitions.keys()
    (panel,) = panels(load_all([folder]), {"branched": effects.read_plan(folder)}, found)
    assert (panel.plan.margin, panel.plan.fixed) == (0.07, True)
    page = report.build(folder, figures="none").read_text()
    assert page.index(branches.QUESTION) > 0
    assert (folder / "answer.json").read_text().index('"branches/fsdd-k-10/0"') > 0


def test_damaged_clusters_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "partitions").mkdir()
    (tmp_path / "partitions" / "a.npz").write_bytes(b"no array")
    with pytest.raises(CatuvacError, match="is damaged"):
        read_partitions(tmp_path)
