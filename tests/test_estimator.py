"""The estimator keeps scikit-learn's contract, and is the model that the commands have."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_clustering, parametrize_with_checks

import catuvac
from catuvac import CatUVACClusterer, Config, inference
from catuvac.cli import main
from catuvac.config import preset
from catuvac.errors import CatuvacError

SMALL = {"channels": 4, "gru_size": 16}
TINY = {"epochs": 2, "batch_size": 16, "n_init": 1, "latent_dim": 2, "random_state": 0, "settings": SMALL}
FIT = {**TINY, "epochs": 40, "batch_size": 30, "settings": {**SMALL, "lr_start": 0.01}}  # finds clusters
CLASS = [0] * 40 + [1] * 40 + [2] * 40


def clips(seed: int = 0) -> NDArray[np.float32]:
    """Pictures `[120, 16, 16]` of three kinds: a line, a falling one, a band."""
    kinds = [np.eye(16), np.eye(16)[::-1], np.broadcast_to(np.arange(16) < 4, (16, 16))]
    noise = np.random.default_rng(seed).normal(size=(120, 16, 16))
    return (noise + 3 * np.stack([kinds[kind] for kind in CLASS])).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> CatUVACClusterer:
    return CatUVACClusterer(3, **FIT).fit(clips())


def does_not_apply(_: CatUVACClusterer) -> dict[str, str]:
    why = "the check asks for one cluster, and a model with one has nothing to learn"
    names = ("dont_overwrite_parameters", "methods_subset_invariance", "fit2d_1feature", "fit2d_predict1d")
    return {
        **{f"check_{name}": why for name in names},
        "check_clustering": "two epochs find no cluster; it is called below with enough of them",
    }


@pytest.mark.slow
@parametrize_with_checks([CatUVACClusterer(3, **TINY)], expected_failed_checks=does_not_apply)
def test_scikit_learn_finds_no_fault(estimator: CatUVACClusterer, check: Callable[[object], None]) -> None:
    check(estimator)


def test_scikit_learns_blobs_are_found() -> None:
    check_clustering("CatUVACClusterer", CatUVACClusterer(3, **FIT))


def test_planted_clusters_are_found_and_new_clips_join_them(fitted: CatUVACClusterer) -> None:
    assert adjusted_mutual_info_score(CLASS, fitted.labels_) > 0.95
    others = clips(seed=1)
    assert adjusted_mutual_info_score(CLASS, fitted.predict(others)) > 0.95
    probabilities = fitted.predict_proba(others)
    assert probabilities.shape == (120, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert (probabilities.argmax(axis=1) == fitted.predict(others)).all()
    assert fitted.transform(others).shape == (120, 2)
    assert 0.5 < fitted.score(others) <= 1
    assert (fitted.predict(clips()) == fitted.labels_).all()


def test_a_seed_repeats_everything() -> None:
    one, other = (CatUVACClusterer(3, **TINY).fit(clips()) for _ in range(2))
    assert (one.predict_proba(clips()) == other.predict_proba(clips())).all()


def test_what_is_saved_is_what_the_commands_open(
    fitted: CatUVACClusterer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted.save(tmp_path / "model")
    again = inference.load(tmp_path / "model")
    assert (again.predict_features(clips(), np.ones((120, 16), bool)).clusters == fitted.labels_).all()
    with pytest.raises(CatuvacError, match="already contains a run"):
        fitted.save(tmp_path / "model")
    assert main(["evaluate", str(tmp_path / "model")]) == 2
    assert "fitted in Python" in capsys.readouterr().err
    settings = ["--config", str(tmp_path / "model" / "config.yaml"), "--data-root", str(tmp_path)]
    assert main(["train", *settings, "--out", str(tmp_path / "model"), "--resume"]) == 2
    assert "fitted in Python" in capsys.readouterr().err


def test_recordings_and_samples_are_the_same_clips(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = [
        (0.1 * rng.normal(size=4000) + 0.5 * np.sin(2 * np.pi * pitch * np.arange(4000) / 8000)).astype(np.float32)
        for pitch in (300, 300, 300, 1500, 1500, 1500, 3000, 3000, 3000)
    ]
    paths = [tmp_path / f"{number}.wav" for number in range(len(samples))]
    for path, clip in zip(paths, samples, strict=True):
        soundfile.write(path, clip, 8000, subtype="FLOAT")
    settings = {"window": 256, "hop": 128, "n_bands": 16, **SMALL}
    front = {**TINY, "sample_rate": 8000, "clip_seconds": 0.5, "settings": settings, "batch_size": 9}
    heard = CatUVACClusterer(3, input="paths", **front).fit(paths)
    given = CatUVACClusterer(3, input="audio", **front).fit(samples)
    assert (heard.predict_proba(paths) == given.predict_proba(samples)).all()
    heard.save(tmp_path / "model")
    assert main(["assign", str(tmp_path / "model"), str(paths[0]), "--out", str(tmp_path / "rows.csv")]) == 0
    row = (tmp_path / "rows.csv").read_text().splitlines()[1].split(",")
    assert str(heard.labels_[0]) in row
    with pytest.raises(CatuvacError, match=r"absent\.wav: unreadable"):
        heard.predict([tmp_path / "absent.wav"])


def test_a_search_over_the_temperature_reads_no_label() -> None:
    search = GridSearchCV(CatUVACClusterer(3, **TINY), {"tau_end": [0.2, 0.5]}, cv=2).fit(clips())
    assert set(search.cv_results_["param_tau_end"]) == {0.2, 0.5}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_it_is_a_step_of_a_pipeline() -> None:
    louder = make_pipeline(FunctionTransformer(lambda x: 2 * x), CatUVACClusterer(3, **TINY))
    assert louder.fit_predict(clips()).shape == (120,)
    assert clone(louder).set_params(catuvacclusterer__n_clusters=4)[-1].n_clusters == 4


def test_the_defaults_are_those_of_the_folder_preset_and_other_presets_fit() -> None:
    assert CatUVACClusterer(random_state=0)._config() == preset("folder")
    spoken = CatUVACClusterer.from_preset("fsdd", n_clusters=4)
    config: Config = spoken._config()
    assert config.model.n_clusters == 4
    assert config.features == preset("fsdd").features
    assert config.training.views == "speech"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"input": "sound"}, "input must be one of"),
        ({"tau_end": 2.0}, "the temperature only falls"),
        ({"settings": {"beta": 1.0}}, "beta is a parameter of its own"),
        ({"settings": {"n_band": 8}}, "did you mean 'n_bands'"),
        ({"settings": {"context": 0.5}}, "cut X into windows"),
    ],
)
def test_bad_parameters_are_one_line(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(CatuvacError, match=words):
        CatUVACClusterer(3, **{**TINY, **parameters}).fit(clips())


def test_the_package_is_light_and_lists_what_it_has() -> None:
    code = "import catuvac, sys; assert not {'torch', 'sklearn', 'pandas'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(catuvac.__all__) <= set(dir(catuvac))
    assert all(getattr(catuvac, name).__doc__ for name in catuvac.__all__)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        catuvac.absent  # noqa: B018


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse(Path(catuvac.__file__).read_text(encoding="utf-8"))
    blocks = [statement for statement in tree.body if isinstance(statement, ast.If)]
    imports = [statement for block in blocks for statement in block.body if isinstance(statement, ast.ImportFrom)]
    seen = {(statement.module, name.name) for statement in imports for name in statement.names}
    assert seen == {(module, name) for name, module in catuvac._MODULE_OF.items()}
    assert sorted(catuvac.__all__) == sorted(catuvac._MODULE_OF)
