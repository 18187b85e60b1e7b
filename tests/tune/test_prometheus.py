from __future__ import annotations

import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune

from catuvac import results
from catuvac.config import Config
from catuvac.data.store import FeatureSet, Prepared
from catuvac.experiments.comparison import Cell, Comparison, cell_config
from catuvac.tune import prometheus
from catuvac.tune.prometheus import Gauges
from catuvac.tune.trainable import AGAIN


@pytest.fixture
def plan(tiny_config: Config, tiny_features: FeatureSet, tmp_path: Path) -> Comparison:
    """Five cells that are ranked by an objective."""
    features = Prepared(
        path=tiny_features.path, config=tiny_config, data_root=None, cache_dir=tiny_features.path.parent
    )
    cells = tuple(
        Cell("cat_uvac", cell_config(tiny_config, method="cat_uvac", epochs=4, n_clusters=3, seed=seed), features)
        for seed in range(5)
    )
    return Comparison(name="a", storage=tmp_path, cells=cells, objectives=("silhouette_x",))


def row(plan: Comparison, number: int, *, status: str, objective: float | None) -> dict[str, Any]:
    known = {"study": plan.name, "status": status, "objective": objective, "started_at": "2026-01-01T00:00:00+00:00"}
    return {**plan.identify({"number": number}, ""), **known}


def report(epoch: int, status: str, objective: float = 0.0) -> dict[str, Any]:
    return {"epoch": epoch, "status": status, "val/objective_silhouette_x": objective}


def live(number: int, **more: Any) -> SimpleNamespace:
    """What a callback sees of a trial."""
    return SimpleNamespace(
        trial_id=f"id{number}", config={"number": number}, **({"status": "RUNNING", "last_result": {}} | more)
    )


class TestCounting:
    def test_a_resumed_study_knows_what_its_table_says(self, plan: Comparison) -> None:
        results.append_trial(plan.folder, row(plan, 0, status="complete", objective=0.25))
        results.append_trial(plan.folder, row(plan, 1, status="diverged", objective=0.75))
        results.append_trial(plan.folder, row(plan, 2, status="error", objective=None))
        made = Gauges(plan)
        made.setup()
        assert made.best == 0.25  # of the complete ones only
        again = live(2)  # an error is tried again
        assert made.counts([again]) == {
            **{"waiting": 2, "running": 1, "complete": 1, "stopped": 0, "diverged": 1, "error": 0}
        }
        made.on_trial_start(0, [again], again)
        again.last_result = report(4, "complete", 0.5)
        made.on_trial_result(0, [again], again, again.last_result)
        made.on_trial_complete(0, [again], again)
        assert made.best == 0.5
        assert made.counts([again])["complete"] == 2

    def test_how_trials_end(self, plan: Comparison) -> None:
        results.append_trial(plan.folder, row(plan, 3, status="diverged", objective=None))
        made = Gauges(plan)
        made.setup()
        for number, status in enumerate(("complete", "running", "diverged")):
            ended = live(number, last_result=report(2, status, 0.1 * number))
            made.on_trial_start(0, [ended], ended)
            made.on_trial_result(0, [ended], ended, ended.last_result)
            made.on_trial_complete(0, [ended], ended)
        failed = live(4)
        made.on_trial_error(0, [failed], failed)
        expected = {"waiting": 0, "running": 0, "complete": 1, "stopped": 1, "diverged": 2, "error": 1}
        assert made.counts([failed]) == expected
        assert made.best == 0.0

    def test_speed_counts_from_the_epoch_that_a_trial_goes_on_from(self, plan: Comparison) -> None:
        made = Gauges(plan)
        made.setup()
        resumed = live(0, last_result=report(30, "running"))
        made.on_trial_start(0, [resumed], resumed)
        made.on_trial_result(0, [resumed], resumed, report(40, "running"))
        made.on_trial_result(0, [resumed], resumed, {**report(50, "running"), AGAIN: True})
        assert made.points[-1][1] == 10
        now = time.monotonic()
        made.points.clear()
        made.points.extend([(now - 400, 0), (now - 300, 10), (now - 200, 20), (now - 100, 40)])
        assert made.epochs_per_second() == pytest.approx(20 / 200, rel=0.01)  # reports are rarer than the window
        made.points.extend([(now - 40, 50), (now - 20, 70), (now, 100)])
        assert made.epochs_per_second() == pytest.approx(60 / 100, rel=0.01)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers cannot import this file


def trial(point: dict[str, Any]) -> None:
    """The first one ends at once, the others take until the test has seen enough."""
    for epoch in range(1, 5):
        ends = epoch == 4
        tune.report(report(epoch, "complete" if ends else "running", 0.5))
        time.sleep(0 if point["number"] == 0 else 7)


@pytest.fixture
def exported() -> Iterator[str]:
    """The address of the metrics of a Ray on this machine."""
    settings = {"metrics_report_interval_ms": 1000}  # ms; 10 000 by itself
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _system_config=settings,
    )
    [node] = ray.nodes()
    yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    ray.shutdown()


def scrape(address: str) -> dict[str, float]:
    """Our own gauges: name and state → value."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    text = opener.open(address, timeout=5).read().decode()
    found = {}
    for name, labels, value in re.findall(r"^(ray_catuvac_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        assert 'study="a"' in labels
        state = re.search(r'state="(\w+)"', labels)
        found[name + (f" {state[1]}" if state else "")] = float(value)
    return found


@pytest.mark.slow
def test_ray_exports_them(plan: Comparison, exported: str) -> None:
    seen: list[dict[str, float]] = []

    class Scraper(tune.Callback):  # type: ignore[misc]
        def on_step_end(self, **info: Any) -> None:
            del info
            seen.append(scrape(exported))

    done = tune.Tuner(
        trial,
        param_space={"number": tune.grid_search(list(range(2)))},
        run_config=tune.RunConfig(
            name="a", storage_path=str(plan.storage), callbacks=[Gauges(plan), Scraper()], verbose=0
        ),
    ).fit()
    assert done.num_errors == 0
    full = [scraped for scraped in seen if len(scraped) == len(prometheus.STATES) + 2]
    assert any(scraped["ray_catuvac_trials running"] == 1 for scraped in full)
    last = seen[-1]
    assert last["ray_catuvac_best_objective"] == 0.5
    assert last["ray_catuvac_epochs_per_second"] > 0
    assert last["ray_catuvac_trials waiting"] == 3
    # Once seen they never vanish: Ray forgets what is not set again.
    assert full == seen[-len(full) :]
