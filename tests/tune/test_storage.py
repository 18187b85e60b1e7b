"""The tables of a study in a bucket, which several machines may continue one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from test_results import trial

from catuvac import results
from catuvac.config import Config
from catuvac.experiments.search import Arm, Search
from catuvac.tune import storage


def two_machines(tmp_path: Path, config: Config) -> tuple[Search, Search]:
    """The same study in one bucket, with the local folder of each machine."""
    remote = (tmp_path / "store").as_uri()
    here = Search(name="a", storage=tmp_path / "here", remote=remote, config=config, arms=(Arm("random", 4),))
    return here, replace(here, storage=tmp_path / "there")


def test_of_two_machines_with_one_bucket_the_tables_that_go_further_are_kept(
    tmp_path: Path, tiny_config: Config
) -> None:
    here, there = two_machines(tmp_path, tiny_config)

    def ended(plan: Search) -> list[int]:
        return results.read_trials(plan.folder)["number"].tolist()

    results.append_trial(here.folder, trial(0))
    (here.folder / "study.json").write_text("{}")
    storage.push(here)
    storage.pull(there)  # another machine starts where this one ended
    assert ended(there) == [0]
    results.append_trial(there.folder, trial(1))
    (there.folder / "study.json").write_text('{"extended": true}')
    storage.push(there)
    storage.pull(here)  # and this one goes on after it
    assert ended(here) == [0, 1]
    assert (here.folder / "study.json").read_text() == '{"extended": true}'
    results.append_trial(here.folder, trial(2))
    storage.pull(here)  # what the bucket lacks stays
    assert ended(here) == [0, 1, 2]
    (here.folder / results.TRIALS).write_bytes(b"PAR1")
    storage.pull(here)  # a damaged table is replaced
    assert ended(here) == [0, 1]


def test_a_trial_that_another_machine_has_completed_after_an_error_goes_further(
    tmp_path: Path, tiny_config: Config
) -> None:
    here, there = two_machines(tmp_path, tiny_config)
    for row in (trial(0), trial(1) | {"status": "error"}):
        results.append_trial(here.folder, row)
    (here.folder / "study.json").write_text("{}")
    storage.push(here)
    storage.pull(there)
    results.append_trial(there.folder, trial(1))  # as many rows as before
    storage.push(there)
    storage.pull(here)
    assert results.read_trials(here.folder)["status"].tolist() == ["complete", "complete"]
