"""Fixtures that every test may use."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from catuvac.config import Config, preset
from catuvac.data import store
from catuvac.data.store import FeatureSet
from catuvac.errors import guarded
from catuvac.training import run_dir

os.environ["RAY_ADDRESS"] = "local"  # never the cluster of somebody who works on this machine
# Ray's ports are open to the network: whoever reaches those of a test must not run code here. Before Ray is imported.
os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
# Ray gives its workers 15, and another test would starve them.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
torch.set_num_threads(1)  # the networks of the tests are too small to share, and results depend on the number


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with clusters come first: they are the longest, and two workers should end together."""
    items.sort(key=lambda item: "tune" not in item.path.parts)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real recordings beside the checkout (or $CATUVAC_SHARED_DATA); skips where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("CATUVAC_SHARED_DATA", default))
    if not root.is_dir():
        pytest.skip(f"no real recordings at {root}; set CATUVAC_SHARED_DATA to run this test")
    return root


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Three generated scenes of sixteen clips, two epochs: seconds to train, enough to run every line."""
    return preset("synthetic").with_settings(
        {
            "n_classes": 3,
            "clips_per_class": 16,
            "n_bands": 16,
            "n_clusters": 3,
            "latent_dim": 2,
            "channels": 4,
            "gru_size": 16,
            "cluster_init": "random",
            "warmup_share": 0.0,
            "invariance": 0.0,
            "sigma": 3.3,
            "beta": 0.1,
            "epochs": 2,
            "eval_every": 1,
            "batch_size": 8,
            "val_fraction": 0.25,
            "test_fraction": 0.25,
        }
    )


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature cache shared by the tests of one run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_features(tiny_config: Config, cache_dir: Path) -> FeatureSet:
    return store.prepare(tiny_config, data_root=None, cache_dir=cache_dir, workers=1, progress=False)


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Config, tiny_features: FeatureSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training, to be read alone."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    run_dir.train(folder, tiny_config, tiny_features, device="cpu", threads=1)
    return folder


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray with two cores, which scripts and studies in this process use instead of starting one."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def run_script(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a script of studies/ in this process, as its last lines do; returns exit code, output and errors.

    A process of its own imports torch and Ray for seven seconds.
    """

    def run(script: type[Any], flags: Sequence[str]) -> tuple[int, str, str]:
        capsys.readouterr()
        code = guarded(lambda: tyro.cli(script, args=flags).run())
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run_script: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Runs a script of studies/ in this process, which has to refuse its flags; returns what it says."""

    def run(script: type[Any], flags: Sequence[str]) -> str:
        code, _, errors = run_script(script, flags)
        assert code == 2
        assert errors.strip().splitlines()[-1].startswith("error: ")
        assert "Traceback" not in errors
        return errors

    return run
