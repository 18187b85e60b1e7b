"""The pictures by which a user judges what the clusters are blind to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.questions import views
from analysis.sections import views as words
from catuvac import trained
from catuvac.config import Config
from catuvac.data.store import FeatureSet
from catuvac.training import run_dir


@pytest.fixture(scope="module")
def model(tiny_config: Config, tiny_features: FeatureSet, tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    folder = tmp_path_factory.mktemp("views") / "run"
    config = tiny_config.with_settings({"epochs": 1, "view_strength": 0.4})
    run_dir.train(folder, config, tiny_features, device="cpu", threads=0)
    return trained.open_run(folder)


def test_each_clip_stands_above_views_that_differ_from_it(model: trained.Trained) -> None:
    found = views.examples(model)
    assert found.pictures.shape == (views.CLIPS, 1 + views.VIEWS, *model.x.shape[1:])
    assert len(found.titles) == views.CLIPS
    chosen = np.linspace(0, len(model.clips) - 1, views.CLIPS).round().astype(int)
    assert np.array_equal(found.pictures[:, 0], model.x[chosen])
    apart = np.abs(found.pictures[:, 1:] - found.pictures[:, :1]).max(axis=(2, 3))
    assert (apart > 0.01).all()
    assert np.array_equal(views.examples(model).pictures, found.pictures)


def test_the_section_names_the_views_and_what_they_were_for(model: trained.Trained, tmp_path: Path) -> None:
    section = words.section(model)
    (statement,) = section.statements
    assert statement.values["strength"] == 0.4
    assert statement.values["views"] == "scene"
    (group,) = section.parts
    (drawing,) = group.drawings  # type: ignore[union-attr]
    drawing.figure.savefig(tmp_path / "views.png")
    assert (tmp_path / "views.png").stat().st_size > 10_000
