"""Ranges, arms and designed points."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from catuvac.config import PAPER_PROTOCOL, Config, ConfigError
from catuvac.experiments.base import duration
from catuvac.experiments.search import Arm, Search, Stage
from catuvac.experiments.search_space import SearchSpace

PLANE = {"tau_schedule": ("linear",), "beta": (0.1, 0.1), "latent_dim": (4, 4)}  # only tau_start and tau_ratio vary


def study(config: Config, **settings: object) -> Search:
    defaults: dict[str, object] = {"name": "a", "storage": Path("/results"), "arms": (Arm("random", 3),)}
    return Search(config=config, **(defaults | settings))  # type: ignore[arg-type]


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
    points = SearchSpace(PLANE).grid(25)
    assert len({(point["tau_start"], point["tau_ratio"]) for point in points}) == 25
    assert {points[0]["tau_start"], points[-1]["tau_start"]} == {0.5, 5.0}
    assert {point["beta"] for point in points} == {0.1}


def test_a_grid_that_cannot_be_filled_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="use grid:25 or grid:20"):
        SearchSpace(PLANE).grid(24)


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
        ({"objectives": ("macs",)}, "name another objective before it"),
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
        ({"y_estimator": ["gumbel", "gumbel"]}, "y_estimator must be some of"),
        ({"n_clusters": [1, 5]}, "2 <= low"),
        ({"n_clusters": [2.5, 5]}, "whole numbers"),
        ({"n_clusters": [5]}, "two numbers"),
        ({"invariance": [-1, 5]}, "0 <= low"),
    ],
)
def test_bad_search_ranges(ranges: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SearchSpace(ranges)


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
        ("factorial:tau_ratio=0.5/2", "0 < level <= 1"),
        ("factorial:n_clusters=1/2", "whole numbers, 2 <= level"),
        ("factorial:y_estimator=gumble/exact", "did you mean 'gumbel'"),
        ("factorial:tau_start=1/1", "named twice"),
        ("factorial:tau_start=1/2+tau_start=3/4", "names a setting twice"),
    ],
)
def test_bad_factorials_are_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Arm.parse(text)


def test_a_level_outside_of_its_range_and_a_margin_of_nothing(tiny_config: Config) -> None:
    with pytest.raises(ConfigError, match=r"tau_start 50\.0 is outside its search range 0\.5, 5\.0"):
        study(tiny_config, arms=(Arm.parse("factorial:tau_start=1/50"),))
    with pytest.raises(ConfigError, match="margin must be positive"):
        study(tiny_config, margin=0.0)
    with pytest.raises(ConfigError, match="primary must be one of tau_start, tau_ratio"):
        study(tiny_config, primary="beta")


def test_the_question_is_part_of_what_must_not_change(tiny_config: Config) -> None:
    made = study(tiny_config, primary="tau_start", margin=0.05).design()
    assert (made["primary"], made["margin"]) == ("tau_start", 0.05)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\nb", "a\x1b[2J", "a\udcff"])
def test_a_name_is_that_of_a_folder_beside_the_others(name: str, tmp_path: Path, tiny_config: Config) -> None:
    with pytest.raises(ConfigError, match="name must be a plain folder name"):
        Search(name=name, storage=tmp_path, config=tiny_config, arms=(Arm("random", 1),))


ALL = {"n_clusters": (3, 4), "y_estimator": ("gumbel", "exact"), "invariance": (0.0, 20.0)}


def test_a_further_dimension_is_searched_only_where_it_is_asked_for(tiny_config: Config) -> None:
    assert not set(ALL) & set(SearchSpace().ranges)
    made = study(tiny_config, space=SearchSpace(ALL), arms=(Arm("qmc", 64),))
    points = [point for _, point in made.slots()]
    assert {point["n_clusters"] for point in points} == {3, 4}
    assert Counter(point["y_estimator"] for point in points) == {"gumbel": 32, "exact": 32}
    assert sum(point["invariance"] < 10 for point in points) == 32  # on a straight scale
    config = made.trial_config({**points[0], "number": 0, "arm": "qmc"})
    assert {name: config.flat()[name] for name in ALL} == {name: points[0][name] for name in ALL}
    sampled = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [made.space.suggest(sampled.ask()) for _ in range(30)]
    assert {point["y_estimator"] for point in drawn} == {"gumbel", "exact"}
    assert set(drawn[0]) == set(SearchSpace(ALL).ranges)


def test_a_grid_has_a_level_for_every_word() -> None:
    points = SearchSpace({**PLANE, "latent_dim": (4, 4), "y_estimator": ("gumbel", "exact")}).grid(8)
    assert Counter(point["y_estimator"] for point in points) == {"gumbel": 4, "exact": 4}


def test_a_factorial_names_dimensions_that_are_not_searched(tiny_config: Config) -> None:
    arm = Arm.parse("factorial:y_estimator=gumbel/exact+invariance=0/10+n_clusters=3/4", seeds=2)
    made = study(tiny_config, arms=(arm, Arm("tpe", 1)))
    configs = [made.trial_config({**p, "number": n, "arm": a}) for n, (a, p) in enumerate(made.slots()) if p]
    assert Counter((c.model.y_estimator, c.training.invariance, c.model.n_clusters) for c in configs) == {
        (e, i, k): 2 for e in ("gumbel", "exact") for i in (0.0, 10.0) for k in (3, 4)
    }
    assert Arm.read(str(arm)) == arm


def test_more_clusters_than_a_batch_can_balance_are_refused_before_the_start(tiny_config: Config) -> None:
    ranges = {"n_clusters": (3, 6), "invariance": (0.0, 10.0)}  # a batch has 8 clips
    with pytest.raises(ConfigError, match="batch_size must be at least 12, got 8"):
        study(tiny_config, space=SearchSpace(ranges))
    with pytest.raises(ConfigError, match="batch_size must be at least 12, got 8"):
        study(tiny_config, arms=(Arm.parse("factorial:n_clusters=3/6+invariance=0/10"),))
    assert study(tiny_config, space=SearchSpace({"n_clusters": (3, 6)})).largest().model.n_clusters == 6


def test_blocks_vary_the_split_that_is_drawn(tiny_config: Config) -> None:
    arm = Arm.parse("factorial:tau_start=1/2", seeds=3)
    config = tiny_config.with_settings({"split_seed": 5})
    made = study(config, arms=(Arm("random", 2), arm))
    split_seeds = [
        made.trial_config({**p, "number": n, "arm": a}).split.split_seed for n, (a, p) in enumerate(made.slots())
    ]
    assert split_seeds == [5, 5, 5, 5, 6, 6, 7, 7]
    assert [split.split_seed for split in made.splits()] == [5, 6, 7]
    official = study(config.with_settings({"split": "official"}), arms=(arm,))
    assert {official.trial_config({**p, "number": 0}).split.split_seed for _, p in official.slots()} == {5}
    assert len(official.splits()) == 1
    assert (made.blocks_vary, official.blocks_vary) == ("weights, order and split", "weights and order")


def extended(before: Search, **settings: object) -> Search:
    return replace(before, **settings).continuing(before.stages)  # type: ignore[arg-type]


FACTORIAL = "factorial:tau_start=0.5/2+y_estimator=gumbel/exact"


@pytest.mark.parametrize(
    ("settings", "added"),
    [
        ({"arms": (Arm("qmc", 9), Arm.parse(FACTORIAL, seeds=2))}, ["qmc"] * 4),
        ({"arms": (Arm("qmc", 5), Arm.parse(FACTORIAL, seeds=3))}, ["factorial"] * 4),
        ({"arms": (Arm("qmc", 5), Arm.parse(FACTORIAL.replace("0.5/2", "0.5/1/2"), seeds=2))}, ["factorial"] * 4),
        ({"arms": (Arm("qmc", 5), Arm.parse(FACTORIAL, seeds=2), Arm("tpe", 2))}, ["tpe"] * 2),
        ({"space": SearchSpace({"tau_start": (0.25, 8.0)})}, []),
        (
            {"space": SearchSpace({"n_clusters": (3, 4)}), "arms": (Arm("qmc", 6), Arm.parse(FACTORIAL, seeds=2))},
            ["qmc"],
        ),
    ],
)
def test_an_extension_adds_to_what_a_study_has(settings: dict[str, Any], added: list[str], tiny_config: Config) -> None:
    before = study(tiny_config, arms=(Arm("qmc", 5), Arm.parse(FACTORIAL, seeds=2)))
    after = extended(before, **settings)
    assert after.slots()[: before.trials] == before.slots()
    assert [arm for arm, _ in after.slots()[before.trials :]] == added
    again = extended(after)  # as a resumption gives the same flags once more
    assert again == after
    assert Stage.read(json.loads(json.dumps(after.stages[-1].record()))) == after.stages[-1]


def test_a_study_is_extended_twice(tiny_config: Config) -> None:
    first = study(tiny_config, arms=(Arm("random", 2),))
    second = extended(first, arms=(Arm("random", 4),))
    third = extended(second, arms=(Arm("random", 4), Arm.parse("factorial:tau_start=1/2", seeds=1)))
    assert [arm for arm, _ in third.slots()] == ["random"] * 4 + ["factorial"] * 2
    assert third.slots()[:4] == study(tiny_config, arms=(Arm("random", 4),)).slots()  # as if it had been so at once
    assert len(third.earlier) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"arms": (Arm("qmc", 4), Arm.parse(FACTORIAL, seeds=2))}, "the study has qmc:5"),
        ({"arms": (Arm("qmc", 5),)}, "the study has factorial"),
        ({"arms": (Arm("qmc", 5), Arm.parse(FACTORIAL, seeds=1))}, "give its levels and seeds again"),
        ({"arms": (Arm.parse(FACTORIAL, seeds=2), Arm("tpe", 1))}, "the study has qmc:5"),
        ({"space": SearchSpace({"beta": (0.02, 1.0)})}, "beta .* can only become wider"),
        ({"space": SearchSpace({"tau_schedule": ("exponential", "linear")})}, "choices of a study"),
        ({"space": SearchSpace({"y_estimator": ("gumbel", "exact")})}, "names y_estimator"),
    ],
)
def test_an_extension_takes_nothing_away(settings: dict[str, Any], words: str, tiny_config: Config) -> None:
    before = study(tiny_config, arms=(Arm("qmc", 5), Arm.parse(FACTORIAL, seeds=2)))
    with pytest.raises(ConfigError, match=words):
        extended(before, **settings)
