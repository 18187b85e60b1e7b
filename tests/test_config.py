from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from catuvac.config import (
    PAPER_PROTOCOL,
    PRESETS,
    SECTION_OF,
    SECTIONS,
    Config,
    ConfigError,
    differences,
    load_yaml,
    preset,
)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_yaml(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(PRESETS[name].to_yaml())
    assert load_yaml(path) == PRESETS[name]
    assert load_yaml(path).hash() == PRESETS[name].hash()


def test_setting_names_are_unique_over_sections() -> None:
    assert len(SECTION_OF) == sum(len(fields(cls)) for cls in SECTIONS.values())


def test_hash_follows_every_setting() -> None:
    base = Config()
    changed = {
        "corpus": "fsdd",
        "folder_labels": True,
        "overlap": 0.5,
        "hop": 256,
        "clip_norm": "mean",
        "split_seed": 1,
        "beta": 0.5,
        "tau_end": 0.25,
        "seed": 3,
    }
    hashes = {base.with_settings({name: value}).hash() for name, value in changed.items()}
    assert len(hashes | {base.hash()}) == len(changed) + 1
    assert base.hash() == Config().hash()


def test_a_later_setting_changes_no_hash_until_it_is_used() -> None:
    assert Config().hash() == "ac81702fec7f"  # before there were pattern, table and words
    assert not {"pattern", "table", "words"} & set(Config().flat())
    hashes = set()
    for corpus, settings in (
        ("folder", {}),
        ("folder", {"pattern": "(?P<site>.)"}),
        ("folder", {"table": "a.csv"}),
        ("speech_commands", {}),
        ("speech_commands", {"words": ["yes", "no"]}),
        ("speech_commands", {"words": ["no", "yes"]}),
    ):
        config = Config().with_settings({"corpus": corpus, **settings})
        assert set(config.flat()) - set(Config().flat()) == set(settings)
        assert Config().with_settings(config.flat()) == config  # as trial tables hold it
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        hashes.add(config.hash())
    assert len(hashes) == 6


def test_differences_see_settings_that_one_side_does_not_use() -> None:
    plain = Config().with_settings({"corpus": "folder"})
    by_path = plain.with_settings({"pattern": "(?P<site>.)", "seed": 1})
    assert differences(plain, by_path) == {"pattern": (None, "(?P<site>.)"), "seed": (0, 1)}
    assert differences(by_path, plain) == {"pattern": ("(?P<site>.)", None), "seed": (1, 0)}
    assert differences(plain, plain) == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tau_strat": 1.0}, "did you mean 'tau_start'"),
        ({"tau_end": 2.0}, r"tau_end must lie in \(0, tau_start=1.0\]"),
        ({"tau_start": -1.0}, "tau_start must be positive and finite, got -1.0"),
        ({"tau_schedule": "constant"}, "constant tau_schedule needs"),
        ({"tau_schedule": "stepwise"}, "must be one of exponential, linear, cosine, constant"),
        ({"warmup_share": 1.0}, r"warmup_share must lie in \[0, 1\)"),
        ({"cluster_init": "kmeans"}, "needs a warmup_share"),
        ({"beta": -0.1}, "beta must not be negative"),
        ({"n_clusters": 1}, "n_clusters must be at least 2"),
        ({"latent_dim": 2.5}, "latent_dim must be of type int"),
        ({"epochs": True}, "epochs must be of type int"),
        ({"overlap": 1.5}, "overlap must lie in"),
        ({"kind": "spectrogram", "n_bands": 600}, "513 bins"),
        ({"split": "grouped"}, "belong together"),
        ({"lr_start": "fast"}, "lr_start must be a number"),
        ({"cluster_init": "invariance"}, "needs a warmup_share above 0"),
        ({"n_init": 3}, "needs cluster_init 'invariance'"),
        ({"invariance": -1.0}, "invariance must be finite and not negative"),
        ({"invariance": math.inf}, "invariance must be finite"),
        ({"view_strength": 2.0}, r"view_strength must lie in \[0, 1\]"),
        ({"views": "music"}, "views must be one of speech, scene"),
        ({"beta_marginal": math.nan}, "beta_marginal must be finite"),
        ({"invariance": 1.0, "batch_size": 19}, "batch_size must be at least 20, got 19"),
        ({"invariance": 1.0, "method": "uvac"}, "invariance needs a q.*set invariance 0"),
        ({"beta_information": 1.0, "method": "uvac"}, "only cat_uvac has"),
        ({"table": "a.csv"}, "table is a setting of corpus folder, not of synthetic"),
        ({"corpus": "fsdd", "words": ["yes"]}, "words is a setting of corpus speech_commands, not of fsdd"),
        ({"corpus": "folder", "pattern": "(?P<a>.)", "table": "a.csv"}, "give one of folder_labels, pattern and table"),
        ({"corpus": "folder", "pattern": "(?P<a>."}, "is not a regular expression: missing \\)"),
        ({"corpus": "folder", "pattern": r"(\d)/"}, "has no named group"),
        ({"corpus": "speech_commands", "words": ["yes", True]}, "words must be a list of words.*need quotes"),
        ({"corpus": "speech_commands", "words": "yes no yes"}, "words contains a word twice"),
    ],
)
def test_bad_settings_say_what_is_wrong(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Config().with_settings(settings)


def test_numbers_from_yaml_are_converted() -> None:
    config = Config.from_dict({"training": {"lr_start": "1e-3", "tau_start": 2, "epochs": 5.0}})
    assert config.training.lr_start == 1e-3
    assert config.training.tau_start == 2.0
    assert config.training.epochs == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle: {}", "did you mean 'model'"),
        ("a: [", "is not YAML"),
        ("3", "settings by name"),
        ("", "settings by name"),
        ("model: {beta: 1.0, beta: 2.0}", "'beta' is given twice"),
        ("model: {beta: 1.0}\ncorpus: {}\nmodel: {}", "'model' is given twice"),
        ("model: &a [*a]", "expands to more than"),
        ("a: 2024-13-45", "is not YAML"),
        ("a: !!int ''", "is not YAML"),
        ("[" * 10_000, "nested too deeply"),
        ("model: 3", "settings"),
    ],
)
def test_bad_yaml_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_few_lines_of_aliases_are_not_expanded(tmp_path: Path) -> None:
    levels = [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(["a0: &a0 [x,x,x,x,x,x,x,x,x,x]", *levels]))
    with pytest.raises(ConfigError, match="write out its aliases"):
        load_yaml(path)
    path.write_text("training: &a {beta: 1}\nmodel: {<<: *a}")  # a few aliases are no harm
    with pytest.raises(ConfigError, match="unknown setting 'beta'"):
        load_yaml(path)


def test_files_that_are_no_settings_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"corpus: {corpus: \xff}")
    for path, words in (
        (tmp_path / "latin.yaml", "not UTF-8"),
        (tmp_path, "cannot read"),
        (Path("/dev/zero"), "is larger than 256 KiB"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_yaml(path)


def test_absent_files_and_presets() -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_yaml(Path("absent.yaml"))
    with pytest.raises(ConfigError, match="did you mean 'fsdd'"):
        preset("fsd")


def test_a_weight_may_be_a_number_or_none() -> None:
    assert Config().with_settings({"beta_marginal": "1e-3"}).model.beta_marginal == 1e-3
    assert Config().with_settings({"beta_marginal": 2}).model.beta_marginal == 2.0
    assert preset("fsdd").with_settings({"beta_marginal": None}).model.beta_marginal is None
    with pytest.raises(ConfigError, match="must be a number"):
        Config().with_settings({"beta_marginal": "much"})


@pytest.mark.parametrize("name", PRESETS)
def test_the_papers_protocol_adds_nothing_to_any_preset(name: str) -> None:
    config = preset(name).with_settings(PAPER_PROTOCOL)
    assert config.training.warmup_epochs == 0
    assert (config.model, config.features) == (preset(name).model, preset(name).features)


@pytest.mark.parametrize(("epochs", "share", "start"), [(120, 0.75, 72), (2, 0.5, 1), (40, 0.5, 16), (1, 0.5, 0)])
def test_a_start_by_invariance_leaves_the_decoder_a_part_of_the_warm_up(epochs: int, share: float, start: int) -> None:
    settings = {"epochs": epochs, "warmup_share": share, "cluster_init": "invariance", "batch_size": 64}
    assert Config().with_settings(settings).training.start_epochs == start
    assert Config().with_settings({"epochs": epochs, "warmup_share": share}).training.start_epochs == 0


@pytest.mark.parametrize(
    ("epochs", "share", "warm_up"), [(30, 0.5, 15), (30, 0.25, 8), (2, 0.1, 1), (1, 0.5, 0), (9, 0.0, 0)]
)
def test_the_warm_up_is_a_share_of_the_epochs(epochs: int, share: float, warm_up: int) -> None:
    config = Config().with_settings({"epochs": epochs, "warmup_share": share})
    assert config.training.warmup_epochs == warm_up
