"""What a newcomer adds is one entry of a registry: each test makes one, uses what reads it, and edits nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch

from catuvac.config import Config, CorpusConfig
from catuvac.data import store
from catuvac.data.corpora import CORPORA, ClipTable, Corpus
from catuvac.data.store import FeatureSet
from catuvac.evaluation.objectives import OBJECTIVES, scored
from catuvac.experiments.search import Arm, Search
from catuvac.experiments.search_space import DIMENSIONS, Number, SearchSpace
from catuvac.models.cat_uvac import CatUVAC
from catuvac.models.variational import LossTerms
from catuvac.training import run
from catuvac.training.run import TrainingRun
from catuvac.training.schedules import SCHEDULES, Shape, anneal


def test_a_corpus(monkeypatch: pytest.MonkeyPatch, tiny_config: Config, tmp_path: Path) -> None:
    def index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
        del config, data_root
        names = [f"{frequency} {number}" for frequency in (200, 3000) for number in range(16)]
        labels = [name.split()[0] for name in names]
        return ClipTable(pd.DataFrame({"path": names, "label": labels, "duration": 1.0}), "tones")

    def read(config: CorpusConfig, path: str, sample_rate: int, **_: float) -> torch.Tensor:
        del config
        frequency, number = map(float, path.split())
        return torch.sin(2 * math.pi * (frequency + 10 * number) * torch.arange(sample_rate) / sample_rate)

    toy = Corpus("tones", "Two tones", "none", (), "", 32, index, needs_root=False, read=read)
    monkeypatch.setitem(CORPORA, "tones", toy)
    config = tiny_config.with_settings({"corpus": "tones", "n_clusters": 2})
    features = store.prepare(config, data_root=None, cache_dir=tmp_path, workers=1, progress=False)
    assert list(TrainingRun(config, features))[-1]["val/acc"] >= 0.5


def test_a_model_and_a_loss_term(
    monkeypatch: pytest.MonkeyPatch, tiny_config: Config, tiny_features: FeatureSet
) -> None:
    class Sharp(CatUVAC):
        """Cat. UVAC whose loss also asks for sure assignments."""

        def weighted(self, logits: torch.Tensor, **terms: torch.Tensor) -> LossTerms:
            found = super().weighted(logits, **terms)
            entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
            return replace(found, total=found.total + 50 * entropy)

    plain = list(TrainingRun(tiny_config, tiny_features))[-1]
    monkeypatch.setitem(run.MODELS, "cat_uvac", Sharp)
    sharp = TrainingRun(tiny_config, tiny_features)
    report_ = list(sharp)[-1]
    assert report_["val/entropy_y"] < plain["val/entropy_y"]
    again = TrainingRun(tiny_config, tiny_features)
    again.load_state(sharp.state())
    assert again.evaluate("test") == sharp.evaluate("test")


def test_every_shape_of_the_temperature_is_an_entry() -> None:
    assert get_args(Shape) == tuple(SCHEDULES)
    for shape, schedule in SCHEDULES.items():
        end = 2.0 if shape == "constant" else 0.5
        way = [anneal(2.0, end, progress=progress, shape=shape) for progress in np.linspace(0, 1, 2001)]
        assert schedule.mean(np.array([2.0]), np.array([end]))[0] == pytest.approx(np.mean(way), abs=1e-3)


def test_an_objective(monkeypatch: pytest.MonkeyPatch, tiny_config: Config, tiny_features: FeatureSet) -> None:
    monkeypatch.setitem(OBJECTIVES, "sure", lambda scores, _: scores["confidence"])
    study = Search(name="a", storage=Path("/a"), config=tiny_config, arms=(Arm("tpe", 2),), objectives=("sure",))
    found = list(TrainingRun(tiny_config, tiny_features))[-1]
    assert study.objective({**found, **scored(found, n_clusters=3)}) == found["val/confidence"]


def test_a_search_dimension(monkeypatch: pytest.MonkeyPatch, tiny_config: Config) -> None:
    monkeypatch.setitem(DIMENSIONS, "lr_start", Number("lr_start", None, lowest=0, open_below=True))
    arms = (Arm("qmc", 8), Arm.parse("factorial:lr_start=0.001/0.01", seeds=2))
    space = SearchSpace({"lr_start": (1e-3, 1e-2)})
    study = Search(name="a", storage=Path("/a"), config=tiny_config, arms=arms, space=space)
    tried: list[Any] = []
    for number, (arm, point) in enumerate(study.slots()):
        tried.append(study.trial_config({**point, "number": number, "arm": arm}).training.lr_start)
    assert len(set(tried[:8])) == 8
    assert all(1e-3 <= value <= 1e-2 for value in tried)
    assert tried[8:] == [0.001, 0.01, 0.001, 0.01]
