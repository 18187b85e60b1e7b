"""The training step: what a CUDA graph needs of it, and on a GPU the graph itself."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from catuvac.config import Config
from catuvac.data.store import FeatureSet
from catuvac.training.run import TrainingRun
from catuvac.training.step import EAGER_STEPS, GraphedStep, Phase

WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default)


class Unwaiting(TorchDispatchMode):
    """Refuses the operations that wait for a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        assert func not in WAITS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


INVARIANT = {"cluster_init": "invariance", "warmup_share": 0.5, "invariance": 1.0, "n_init": 2, "beta_marginal": 1.0}


@pytest.mark.parametrize(
    ("settings", "phase"),
    [
        ({}, "warm_up"),
        ({"method": "uvac"}, "warm_up"),
        (INVARIANT, "start"),
        (INVARIANT, "main"),
        (INVARIANT | {"views": "speech", "y_estimator": "exact"}, "main"),
        ({"y_estimator": "straight_through"}, "main"),
    ],
)
def test_nothing_in_the_step_waits_for_the_device(
    settings: dict[str, Any], phase: Phase, tiny_config: Config, tiny_features: FeatureSet
) -> None:
    run = TrainingRun(tiny_config.with_settings(settings), tiny_features)
    run.step.start = torch.zeros(len(tiny_features.x), dtype=torch.int64)
    tau, rows = torch.tensor(0.7), torch.arange(8)
    for group in run.optimizer.param_groups:
        group["lr"] = torch.tensor(1e-3)  # as on CUDA
    with Unwaiting():
        for _ in range(2):
            run.step._compute(rows, tau, phase)
        with pytest.raises(AssertionError, match="waits"):
            tau.item()


def test_numbers_and_tensors_of_tau_and_lr_give_the_same_step(tiny_config: Config, tiny_features: FeatureSet) -> None:
    plain, tensors = (TrainingRun(tiny_config, tiny_features) for _ in range(2))
    rows = torch.arange(8)
    for lr in (1e-3, 5e-4):
        plain.step(rows, tau=0.7, lrs=[lr, lr / 10])
        for group, value in zip(tensors.optimizer.param_groups, (lr, lr / 10), strict=True):
            group["lr"] = torch.tensor(value)
        tensors.step._compute(rows, torch.tensor(0.7), "main")
    for ours, theirs in zip(plain.model.parameters(), tensors.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_state_of_a_gpu_goes_on_on_a_cpu(tiny_config: Config, tiny_features: FeatureSet) -> None:
    here, there = TrainingRun(tiny_config, tiny_features), TrainingRun(tiny_config, tiny_features)
    next(iter(here))
    state = here.state()
    for group in state["optimizer"]["param_groups"]:
        group |= {"capturable": True, "lr": torch.tensor(group["lr"])}
    state["noise"] = torch.zeros(16, dtype=torch.uint8)  # as long as that of a CUDA generator
    there.load_state(state)
    assert [report["status"] for report in there] == ["complete"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestGraph:
    """On CUDA, in float32 and with reproducible kernels."""

    @pytest.fixture
    def config(self, tiny_config: Config) -> Config:
        return tiny_config.with_settings({"precision": "float32", "deterministic": True, "epochs": 4})

    def test_replays_are_the_steps_as_written(self, config: Config, tiny_features: FeatureSet) -> None:
        graphed, written = (TrainingRun(config, tiny_features, device="cuda") for _ in range(2))
        assert isinstance(graphed.step, GraphedStep)
        assert isinstance(written.step, GraphedStep)
        written.step.possible = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reports = [list(graphed), list(written)]
        assert graphed.step.graph is not None
        assert written.step.graph is None
        assert graphed.steps[1] * 4 > EAGER_STEPS
        for ours, theirs in zip(*reports, strict=True):
            assert ours["loss/total"] == pytest.approx(theirs["loss/total"], rel=1e-5)

    def test_one_seed_gives_one_result(self, config: Config, tiny_features: FeatureSet) -> None:
        first, second = (TrainingRun(config, tiny_features, device="cuda") for _ in range(2))
        list(first), list(second)
        states = (run.model.state_dict() for run in (first, second))
        assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))

    def test_a_capture_that_fails_is_one_warning(
        self, config: Config, tiny_features: FeatureSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = TrainingRun(config, tiny_features, device="cuda")
        compute = run.step._compute

        def waits(rows: torch.Tensor, tau: torch.Tensor, phase: Phase) -> None:
            tau.item()
            compute(rows, tau, phase)

        monkeypatch.setattr(run.step, "_compute", waits)
        with pytest.warns(UserWarning, match="cannot be captured") as caught:
            reports = list(run)
        assert len(caught) == 1
        assert reports[-1]["status"] == "complete"
