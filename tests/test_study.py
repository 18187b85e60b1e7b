"""Ranges, arms and designed points."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import optuna
import pytest

from catuvac.config import PAPER_PROTOCOL, Config, ConfigError
from catuvac.plan import duration
from catuvac.study import Arm, SearchSpace, Study

PLANE = {"tau_schedule": ("linear",), "beta": (0.1, 0.1), "latent_dim": (4, 4)}  # only tau_start and tau_ratio vary


def study(config: Config, **settings: object) -> Study:
    defaults: dict[str, object] = {"name": "a", "storage": Path("/results"), "arms": (Arm("random", 3),)}
    return Study(config=config, **(defaults | settings))  # type: ignore[arg-type]


def test_every_point_of_every_arm_is_a_valid_setting(tiny_config: Config) -> None:
    made = study(tiny_config, seed=7, arms=(Arm("qmc", 50), Arm("random", 50), Arm("grid", 48)))
    for number, (arm, point) in enumerate(made.slots()):
        training = made.trial_config({**point, "number": number, "arm": arm}).training
        assert 0 < training.tau_end <= training.tau_start
        assert training.seed == 7 + number


def test_every_point_that_optuna_places_is_a_valid_setting(tiny_config: Config) -> None:
    made = study(tiny_config)
    sampled = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(200):
        point = made.space.suggest(sampled.ask())
        training = made.trial_config({**point, "number": number, "arm": "tpe"}).training
        assert 0 < training.tau_end <= training.tau_start


def test_designed_points_depend_on_the_seed_alone_and_tpe_leaves_them_open(tiny_config: Config) -> None:
    arms = (Arm("qmc", 4), Arm("random", 3), Arm("tpe", 2))
    made = study(tiny_config, arms=arms)
    assert [arm for arm, _ in made.slots()] == ["qmc"] * 4 + ["random"] * 3 + ["tpe"] * 2
    assert made.slots() == study(tiny_config, arms=arms).slots()
    assert made.slots()[0] != study(tiny_config, arms=arms, seed=1).slots()[0]
    assert [point for arm, point in made.slots() if arm == "tpe"] == [{}, {}]


def test_quasi_random_points_fill_every_range_evenly(tiny_config: Config) -> None:
    points = [point for _, point in study(tiny_config, arms=(Arm("qmc", 64),)).slots()]
    # tau_start is logarithmic from 0.5 to 5: its middle is at sqrt(2.5).
    assert sum(point["tau_start"] < 2.5**0.5 for point in points) == 32
    assert sum(point["beta"] < 0.1 for point in points) == 32
    assert set(Counter(point["tau_schedule"] for point in points).values()) <= {21, 22}


def test_a_grid_has_every_combination_and_the_ends() -> None:
    points = SearchSpace(**PLANE).grid(25)  # type: ignore[arg-type]
    assert len({(point["tau_start"], point["tau_ratio"]) for point in points}) == 25
    assert {points[0]["tau_start"], points[-1]["tau_start"]} == {0.5, 5.0}
    assert {point["beta"] for point in points} == {0.1}


def test_a_grid_that_cannot_be_filled_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="use grid:25 or grid:20"):
        SearchSpace(**PLANE).grid(24)  # type: ignore[arg-type]


def test_every_latent_dim_is_reached() -> None:
    found = Counter(SearchSpace().at([0, 0, 0, 0, i / 1000])["latent_dim"] for i in range(1001))
    assert sorted(found) == list(range(1, 17))
    assert found[1] > found[2] > found[16] > 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"arms": (Arm("tpe", 0),)}, "trials must be at least 1"),
        ({"arms": ()}, "at least one arm"),
        ({"arms": (Arm("tpe", 1), Arm("tpe", 2))}, "named twice"),
        ({"arms": (Arm("grid", 7),)}, "not a full grid"),
        ({"name": "a/b"}, "plain folder name"),
        ({"name": ""}, "plain folder name"),
        ({"storage": Path("results")}, "absolute"),
        ({"objectives": ("acc",)}, "unknown objective 'acc'"),
        ({"objectives": ()}, "at least one objective"),
        ({"scheduler": "hyperband"}, "scheduler must be one of"),
        ({"gpus_per_trial": -1.0}, "gpus_per_trial"),
        ({"keep_top": -1}, "keep_top"),
        ({"max_failures": -1}, "max_failures"),
    ],
)
def test_bad_studies(settings: dict[str, object], words: str, tiny_config: Config) -> None:
    with pytest.raises(ConfigError, match=words):
        study(tiny_config, **settings)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"tau_stat": [1, 2]}, "did you mean 'tau_start'"),
        ({"beta": [2, 1]}, "low <= high"),
        ({"beta": [-1, 1]}, "0 < low"),
        ({"tau_start": [-1, 1]}, "0 < low"),
        ({"tau_ratio": [0.5, 2.0]}, "end at 1"),
        ({"tau_schedule": ["steps"]}, "tau_schedule must be some of"),
    ],
)
def test_bad_search_ranges(ranges: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SearchSpace.from_dict(ranges)


@pytest.mark.parametrize(
    ("text", "words"),
    [("tpe", "SAMPLER:TRIALS"), ("qmc:many", "SAMPLER:TRIALS"), ("sobol:4", "sampler must be one of")],
)
def test_bad_arms(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Arm.parse(text)


def test_an_arm_reads_and_writes_alike() -> None:
    assert str(Arm.parse("qmc:16")) == "qmc:16"


def test_durations() -> None:
    assert [duration(s) for s in (40.2, 200, 7500)] == ["40 s", "3 min 20 s", "2 h 05 min"]


def test_the_paper_arm_trains_by_the_papers_protocol_and_searches_nothing(tiny_config: Config) -> None:
    made = study(tiny_config.with_settings({"invariance": 5.0}), arms=(Arm("paper", 2), Arm("qmc", 2)), seed=7)
    assert [arm for arm, _ in made.slots()] == ["paper"] * 2 + ["qmc"] * 2
    rows = [made.identify({"number": number, "arm": "paper"}, "t") for number in range(2)]
    assert [row["method"] for row in rows] == ["cat_uvac_paper"] * 2
    assert [row["seed"] for row in rows] == [7, 8]
    for row in rows:
        assert {f"config/{name}": row[f"config/{name}"] for name in PAPER_PROTOCOL} == {
            f"config/{name}": value for name, value in PAPER_PROTOCOL.items()
        }


def test_a_factorial_is_a_full_grid_on_every_seed_block(tiny_config: Config) -> None:
    arm = Arm.parse("factorial:tau_start=0.5/2+tau_ratio=0.1/0.5/1+latent_dim=2/4", seeds=3)
    assert (arm.trials, str(arm)) == (36, "factorial:tau_start=0.5/2.0+tau_ratio=0.1/0.5/1.0+latent_dim=2/4, 3 seeds")
    made = study(tiny_config, arms=(Arm("paper", 1), arm), seed=7)
    points = [point for name, point in made.slots() if name == "factorial"]
    keys = [(p["tau_start"], p["tau_ratio"], p["latent_dim"], p["block"]) for p in points]
    assert sorted(keys) == sorted(
        (s, r, d, b) for s in (0.5, 2.0) for r in (0.1, 0.5, 1.0) for d in (2, 4) for b in range(3)
    )
    assert [p["block"] for p in points] == [0] * 12 + [1] * 12 + [2] * 12  # a study cut short has whole blocks
    configs = [made.trial_config({**point, "number": n, "arm": "factorial"}) for n, point in enumerate(points, 1)]
    assert {config.training.seed for config in configs} == {7, 8, 9}
    assert {config.model.beta for config in configs} == {tiny_config.model.beta}  # what is not named stays
    assert len({config.hash() for config in configs}) == 36
    assert all(config.training.tau_end <= config.training.tau_start for config in configs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("factorial:", "a factor is SETTING=LEVEL"),
        ("factorial:tau=1/2", "a factor is SETTING=LEVEL"),
        ("factorial:tau_start=a/b", "must be numbers"),
        ("factorial:tau_start=1/1", "named twice"),
        ("factorial:tau_start=1/2+tau_start=3/4", "names a setting twice"),
    ],
)
def test_bad_factorials_are_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Arm.parse(text)


def test_a_level_outside_of_its_range_and_a_margin_of_nothing(tiny_config: Config) -> None:
    with pytest.raises(ConfigError, match=r"tau_start 50\.0 lies outside of its search range 0\.5, 5\.0"):
        study(tiny_config, arms=(Arm.parse("factorial:tau_start=1/50"),))
    with pytest.raises(ConfigError, match="margin must be positive"):
        study(tiny_config, margin=0.0)
    with pytest.raises(ConfigError, match="primary must be one of tau_start, tau_ratio"):
        study(tiny_config, primary="beta")


def test_the_question_is_part_of_what_must_not_change(tiny_config: Config) -> None:
    made = study(tiny_config, primary="tau_start", margin=0.05).design()
    assert (made["primary"], made["margin"]) == ("tau_start", 0.05)
