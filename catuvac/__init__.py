"""Categorical unsupervised variational acoustic clustering (Cat. UVAC, arXiv 2504.07652).

    from catuvac import CatUVACClusterer

    clusterer = CatUVACClusterer(n_clusters=5, input="paths", random_state=0).fit(paths)
    clusterer.labels_, clusterer.predict(others)

| name | description |
|---|---|
| `CatUVACClusterer` | the complete method as a scikit-learn estimator: recordings, audio or features in, clusters out |
| `load` | opens the model of `catuvac train`, of a study, or of `CatUVACClusterer.save` |
| `FittedModel` | what `load` returns: it assigns new clips |
| `Prediction` | its output for these clips: probabilities, z, reconstruction error |
| `Config` | every setting of a training run, as frozen dataclasses |
| `preset` | the settings for a corpus, by name |
| `prepare` | the features of a corpus, extracted once and cached |
| `FeatureSet` | what `prepare` returns: features, masks, splits |
| `train` | trains a model in a folder, as `catuvac train` does |
| `TrainingRun` | a training run: iterate over it for a report at each evaluation |
| `evaluate` | scores a trained folder on one split, next to k-means |
| `label_scores` | accuracy, NMI, AMI and ARI of clusters against labels |
| `invariant_information` | the label-free score that studies maximise |
| `CatuvacError` | raised for bad input, with one line that states the problem and a remedy |

Every name is imported on first use: `import catuvac` itself loads neither PyTorch nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers; a test keeps the two lists in sync
    from catuvac.config import Config, preset
    from catuvac.data.store import FeatureSet, prepare
    from catuvac.errors import CatuvacError
    from catuvac.estimator import CatUVACClusterer
    from catuvac.evaluation.metrics import invariant_information, label_scores
    from catuvac.inference import FittedModel, Prediction, load
    from catuvac.training.run import TrainingRun
    from catuvac.training.run_dir import evaluate, train

__version__ = "0.1.0"

__all__ = [
    "CatUVACClusterer",
    "CatuvacError",
    "Config",
    "FeatureSet",
    "FittedModel",
    "Prediction",
    "TrainingRun",
    "evaluate",
    "invariant_information",
    "label_scores",
    "load",
    "prepare",
    "preset",
    "train",
]

_MODULES = {
    "catuvac.config": ("Config", "preset"),
    "catuvac.data.store": ("FeatureSet", "prepare"),
    "catuvac.errors": ("CatuvacError",),
    "catuvac.estimator": ("CatUVACClusterer",),
    "catuvac.inference": ("FittedModel", "Prediction", "load"),
    "catuvac.evaluation.metrics": ("invariant_information", "label_scores"),
    "catuvac.training.run_dir": ("evaluate", "train"),
    "catuvac.training.run": ("TrainingRun",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
