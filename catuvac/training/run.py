"""The core training function: a generator of flat reports that the command line, Ray and a notebook all consume.

    run = TrainingRun(Config(), features)
    for report in run:              # one flat report an evaluation
        checkpoint.save(path, run.state())

It knows neither files nor Ray. One seed with one number of threads gives one result on a CPU, bit for bit, and a run
that loads a `state` ends with the same weights as one that never stopped. On CUDA that needs the setting
`deterministic`: without it cuDNN picks the fastest kernels, some of which add in an order that changes from run to run.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from catuvac.config import Config, ConfigError, ModelConfig, Precision, TrainingConfig, differences
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.evaluation import metrics
from catuvac.models.cat_uvac import CatUVAC
from catuvac.models.fast_conv import split_pixels
from catuvac.models.networks import GRID, ConvRecurrentEncoder
from catuvac.models.shallow import kmeans, pca_gmm
from catuvac.models.uvac import UVAC
from catuvac.models.variational import VariationalModel
from catuvac.training import checkpoint
from catuvac.training.allocator import disable_trimming
from catuvac.training.augment import VIEWS, view
from catuvac.training.invariance import MAX_CLIPS
from catuvac.training.schedules import anneal, anneal_on
from catuvac.training.step import LOSSES, DeviceFeatures, GraphedStep, Invariance, Phase, TrainingStep, kernels

Report = dict[str, Any]

STATE_FORMAT = 6
SMALLEST_SIGMA = 1e-3  # features that are all alike still have a likelihood
EVAL_BATCH = 256  # clips; evaluation keeps no activations, so larger than a training batch
VIEW_SEED = 0  # of the views that the score is computed on: the same for every model
AFTER_BRANCH = ("tau_end", "tau_schedule")  # settings that a branch may change
MODELS: dict[str, Callable[..., VariationalModel]] = {"cat_uvac": CatUVAC, "uvac": UVAC}


def use_bf16(precision: Precision, device: torch.device, n_bands: int) -> bool:
    """Whether autocast should compute in bfloat16: "auto" asks the device, "float32" never does.

    Raises:
        ConfigError: bfloat16 asked for where the CPU library computes it wrongly.
    """
    if device.type == "cuda":
        return precision != "float32" and (precision == "bf16" or torch.cuda.is_bf16_supported())
    # oneDNN 3.11 (torch 2.12) returns garbage from a strided bf16 convolution onto a grid one column wide.
    wrong = n_bands == GRID
    if precision == "bf16" and wrong:
        raise ConfigError(f"precision bf16 is wrong on the CPU for F = {n_bands} bands; use float32, or more bands")
    # Without AMX or AVX512-BF16 instructions bfloat16 is emulated, slower than float32.
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return precision == "bf16" or (precision == "auto" and native and not wrong)


def with_sigma(config: ModelConfig, features: FeatureSet) -> ModelConfig:
    """Replaces sigma 0 by what d principal axes of the training features leave unexplained, per cell.

    That is the noise of probabilistic PCA (Tipping and Bishop 1999, eq. 8): z can then pay for d dimensions. Labels
    have no part in it.
    """
    if config.likelihood != "gaussian" or config.sigma > 0:
        return config
    x = features.x[features.splits["train"]].reshape(len(features.splits["train"]), -1)
    axes = min(config.latent_dim, len(x) - 1)
    explained = PCA(axes, svd_solver="randomized", random_state=0).fit(x).explained_variance_.sum()
    variance = (x.var(axis=0, ddof=1).sum() - explained) / (x.shape[1] - axes)
    # Rounding makes it negative where the axes leave nothing over.
    return replace(config, sigma=max(math.sqrt(max(variance, 0.0)), SMALLEST_SIGMA))


def two_views(
    batches: Iterable[tuple[Tensor, Tensor]],
    logits: Callable[[Tensor], Tensor],
    config: TrainingConfig,
    *,
    device: torch.device,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The probabilities `[n, K]` of two views of each clip. The views are the same for every model.

    Args:
        batches: x `[B, 1, T, F]` and the cells that count, as `DeviceFeatures.batch` has them.
        logits: from x to `[B, K]`.
        config: says which views, and how far they lie from their clips.
        device: where the batches are.
    """
    generator = torch.Generator(device).manual_seed(VIEW_SEED)
    views, strength = VIEWS[config.views], config.view_strength
    parts: list[Tensor] = []
    with torch.no_grad(), kernels(device, deterministic=config.deterministic):
        for x, cells in batches:
            pair = [view(x, cells, views, strength=strength, generator=generator) for _ in range(2)]
            parts.append(torch.stack([torch.softmax(logits(each).float(), dim=-1) for each in pair]))
    one, other = torch.cat(parts, dim=1).cpu().numpy()
    return one, other


@dataclass(frozen=True)
class Turn:
    """Where a training has left the temperature's schedule of the one that it branches from."""

    epoch: int  # finished ones
    tau: float  # of the next step


class TrainingRun:
    """One training: model, optimiser, noise and place in the schedule. Iterate it to train."""

    def __init__(self, config: Config, features: FeatureSet, *, device: torch.device | str = "cpu") -> None:
        """Puts the features on the device and draws the weights from the seed.

        Args:
            config: everything that decides the result.
            features: x `[N, T, F]`, activity mask `[N, T]`, splits; labels only ever reach the metrics.
            device: where to train.
        """
        self.config = config
        self.features = features
        self.device = torch.device(device)
        if self.device.type == "cpu":
            disable_trimming()
        n_frames, n_bands = features.x.shape[1:]
        self.bf16 = use_bf16(config.training.precision, self.device, n_bands)
        with torch.random.fork_rng():  # the seed must not depend on, or disturb, the caller's random numbers
            torch.manual_seed(config.training.seed)
            model = MODELS[config.model.method](with_sigma(config.model, features), n_frames=n_frames, n_bands=n_bands)
            others = [model.new_cluster_encoder() for _ in range(config.training.n_init - 1)]
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Further starts of q(y | x); the first is the model's own. Empty once one is chosen.
        self.others = [other.to(self.device, memory_format=torch.channels_last) for other in others]  # type: ignore[call-overload]
        self.optimizer = self._new_optimizer()
        self.order = torch.Generator().manual_seed(config.training.seed)
        self.noise = torch.Generator(self.device).manual_seed(config.training.seed + 1)
        self.epoch = 0
        self.seconds = 0.0  # of training and evaluation, summed over resumptions
        self.train_seconds = 0.0  # of those, in training steps
        self.last_report: Report = {}
        self.data = DeviceFeatures(features, device=self.device)
        self.step = self._new_step()
        self.train_rows = torch.from_numpy(features.splits["train"])
        self.clusters: Tensor | None = None  # [n] of the validation clips at the last evaluation
        self.turn: Turn | None = None  # of a branch with another end of the temperature than its parent

    @property
    def finished(self) -> bool:
        """True after the last epoch, and after a divergence."""
        return bool(self.last_report) and self.last_report["status"] != "running"

    def __iter__(self) -> Iterator[Report]:
        """Trains to the end, yielding a report at each evaluation; a finished run yields its last report again."""
        return self.until(self.config.training.epochs)

    def until(self, epoch: int) -> Iterator[Report]:
        """Trains as a whole training does, but stops once `epoch` epochs are finished, to be continued at any time."""
        if self.finished:
            yield self.last_report
            return
        training = self.config.training
        began = time.perf_counter()
        while not self.finished and self.epoch < epoch:
            self._start_clusters()
            tau, lr = self._train_epoch()
            last = self.epoch == training.epochs
            due = last or self.epoch % training.eval_every == 0
            # Reading the losses waits for a GPU, which is to run on from one evaluation to the next.
            if not due and self.device.type == "cuda":
                continue
            losses = self._losses()
            diverged = not all(math.isfinite(value) for value in losses.values())
            if not (diverged or due):
                continue
            scores = self._floors() if diverged else self._validate()
            self.seconds += time.perf_counter() - began
            self.last_report = {
                "epoch": self.epoch,
                "status": "diverged" if diverged else "complete" if last else "running",
                "tau": tau,
                "lr": lr,
                **{f"loss/{name}": None if diverged else losses.get(name) for name in LOSSES},
                **{f"val/{name}": value for name, value in scores.items()},
                "wall_seconds": self.seconds,
                "train_seconds": self.train_seconds,
            }
            yield self.last_report
            began = time.perf_counter()  # what the caller does with a report is not the run's
        self.seconds += time.perf_counter() - began

    def _new_step(self) -> TrainingStep:
        kind = GraphedStep if self.device.type == "cuda" else TrainingStep
        return kind(
            self.model,
            self.optimizer,
            self.data,
            noise=self.noise,
            bf16=self.bf16,
            grad_clip=self.config.training.grad_clip,
            invariance=self.invariance,
            starts=self.starts,
        )

    @property
    def starts(self) -> list[ConvRecurrentEncoder]:
        """The encoders q(y | x) that there are: the model's own, and the other starts until one of them is chosen."""
        own = self.model.cluster_encoder
        return [] if own is None else [own, *self.others]

    def _new_optimizer(self) -> torch.optim.Adam:
        return torch.optim.Adam(
            self._parameter_groups(),
            lr=self.config.training.lr_start,
            fused=True,
            capturable=self.device.type == "cuda",
        )

    @property
    def invariance(self) -> Invariance:
        """The term as the settings have it; in the warm-up nothing else pulls on q(y | x), so that any weight does."""
        training = self.config.training
        warming = 1.0 if training.cluster_init == "invariance" else 0.0
        return Invariance(
            VIEWS[training.views],
            training.view_strength,
            {"start": warming, "warm_up": warming, "main": training.invariance},
        )

    @property
    def phase(self) -> Phase:
        """What the next epoch trains."""
        training = self.config.training
        if self.epoch < training.start_epochs:
            return "start"
        return "warm_up" if self.epoch < training.warmup_epochs else "main"

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """q(y | x) apart from the rest: its learning rate is another after the warm-up."""
        starts = [list(start.parameters()) for start in self.starts]
        of_y = {id(parameter) for start in starts for parameter in start}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in of_y]
        return [{"params": parameters} for parameters in (rest, *starts)]

    def _start_clusters(self) -> None:
        """Prepares what the next epoch starts from, where there is such a thing.

        That is the clustering that the warm-up teaches q(y | x), the best of the starts that learned by invariance, or
        after the warm-up the mixture of UVAC.
        """
        init, rows = self.config.training.cluster_init, self.features.splits["train"]
        seed, k = self.config.training.seed, self.config.model.n_clusters
        if init != "random" and self.epoch == self.config.training.warmup_epochs:
            self.model.after_warm_up(lambda: self.infer(rows)["mean"], seed=seed)
        if init == "invariance":
            if self.others and self.epoch == self.config.training.trial_epochs:
                self._choose_start()
            if self.epoch == self.config.training.start_epochs:
                self._renew()
        elif init != "random" and self.starts and self.phase == "warm_up" and self.step.start is None:
            x = self.features.x[rows]
            fit = pca_gmm if init == "pca_gmm" else kmeans
            start = torch.zeros(len(self.features.x), dtype=torch.int64)
            start[rows] = torch.from_numpy(fit(x, n_clusters=k, seed=seed)(x).clusters)
            self.step.start = start.to(self.device)

    def _choose_start(self) -> None:
        """Goes on with the start whose clusters hold most invariant information of training clips; reads no label."""
        rows = self.features.splits["train"][:MAX_CLIPS]
        scores = [metrics.invariant_information(*self._two_views(rows, start)) for start in self.starts]
        self.starts[0].load_state_dict(self.starts[int(np.argmax(scores))].state_dict())
        self.others = []
        self._renew()

    def _renew(self) -> None:
        """Goes on with an optimiser without a past, for the weights that there now are."""
        self.optimizer = self._new_optimizer()
        self.step = self._new_step()

    def _train_epoch(self) -> tuple[float, float]:
        """One pass over the training clips; returns the last tau and lr."""
        training, began = self.config.training, time.perf_counter()
        n = len(self.train_rows)
        batch, steps = self.steps
        rows = self.train_rows[torch.randperm(n, generator=self.order)]
        if self.device.type == "cuda":
            rows = rows.pin_memory().to(self.device, non_blocking=True)
        self.model.train()
        for other in self.others:
            other.train()
        phase = self.phase
        self.model.warm_up(phase != "main")
        self.model.limit(training.invariance > 0)
        self.step.sums.zero_()
        with kernels(self.device, deterministic=training.deterministic):
            for step in range(steps):
                progress = (self.epoch * steps + step) / max(1, training.epochs * steps - 1)
                tau = self._tau(step)
                lr = anneal(training.lr_start, training.lr_end, progress=progress, shape="exponential")
                lrs = [lr] * len(self.optimizer.param_groups)
                if phase == "main":
                    lrs[1:] = [lr * training.lr_y_scale] * len(lrs[1:])
                self.step(rows[step * batch : (step + 1) * batch], tau=tau, lrs=lrs, phase=phase)
        self.epoch += 1
        self.train_seconds += time.perf_counter() - began
        return tau, lr

    def _tau(self, step: int) -> float:
        """The temperature of a step of the next epoch."""
        training, steps = self.config.training, self.steps[1]
        if self.turn is None:
            return training.tau_at(epoch=self.epoch, step=step, steps=steps)
        return anneal_on(
            self.turn.tau,
            training.tau_end,
            since=training.annealing_progress(epoch=self.turn.epoch, step=0, steps=steps),
            progress=training.annealing_progress(epoch=self.epoch, step=step, steps=steps),
            shape=training.tau_schedule,
        )

    @property
    def steps(self) -> tuple[int, int]:
        """Clips a step, and steps an epoch: the incomplete last batch is dropped, and each epoch drops other clips."""
        batch = min(self.config.training.batch_size, len(self.train_rows))
        return batch, len(self.train_rows) // batch

    def _losses(self) -> dict[str, float]:
        """Mean losses of the last epoch in nats a clip, of the terms that it had; waits for the device."""
        began = time.perf_counter()
        losses = dict(zip(LOSSES, (self.step.sums / self.steps[1]).tolist(), strict=True))
        self.train_seconds += time.perf_counter() - began
        phase = self.step.phase
        absent = {*LOSSES[:-1]} if phase == "start" else set()
        if not self.invariance.weights[phase]:
            absent.add("invariance")
        return {name: value for name, value in losses.items() if name not in absent}

    def _floors(self) -> dict[str, Any]:
        """The keys of `evaluate("val")` for a diverged run: stated worst values, null where there is none."""
        rows = self.features.splits["val"]
        labelled = self.features.labels(rows) is not None
        scores = metrics.floors(
            n_clusters=self.config.model.n_clusters,
            with_labels=labelled,
            with_views=True,
            nuisances=tuple(self.features.nuisances(rows)),
        )
        return {
            **scores,
            "macs": self.model.macs,
            "active_units": 0,
            **dict.fromkeys(("recon", "kl_y", "kl_z", "elbo", "churn")),
        }

    def _validate(self) -> dict[str, Any]:
        """`evaluate("val")`, and churn: the share of clips in another cluster than at the evaluation before, if any."""
        rows = self.features.splits["val"]
        out = self.infer(rows)
        before, self.clusters = self.clusters, torch.from_numpy(out["probabilities"].argmax(axis=1))
        churn = None if before is None else float((before != self.clusters).float().mean())
        return {**self._scores(rows, out), "churn": churn}

    def infer(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Evaluates clips without noise.

        Args:
            rows: `[n]` rows of the feature set.

        Returns:
            `logits [n, K]`, their softmax `probabilities [n, K]`, `mean [n, d]` of z, and per clip in nats `recon [n]`,
            `kl_y [n]`, `kl_z [n]`.
        """
        parts: list[dict[str, Tensor]] = []
        self.model.eval()
        with torch.no_grad(), kernels(self.device, deterministic=self.config.training.deterministic):
            for chunk in torch.split(torch.from_numpy(rows).to(self.device), EVAL_BATCH):
                x, cells = self.data.batch(chunk)
                with self.step.autocast():
                    inference = self.model.infer(x)
                    recon_logits = self.model.generate(inference.y, inference.z)
                parts.append(
                    {
                        "logits": inference.logits,
                        "probabilities": torch.softmax(inference.logits, dim=-1),
                        "mean": inference.mean,
                        **self.model.terms(x, cells, inference, recon_logits),
                    }
                )
        return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}

    def _two_views(
        self, rows: NDArray[np.int64], encoder: ConvRecurrentEncoder | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The probabilities `[n, K]` of two views of each clip, by the model or by one of its starts."""
        module = self.model if encoder is None else encoder
        module.eval()

        def logits(x: Tensor) -> Tensor:
            with self.step.autocast():
                out: Tensor = self.model.cluster_logits(x) if encoder is None else encoder(split_pixels(x))
                return out

        chunks = torch.split(torch.from_numpy(rows).to(self.device), EVAL_BATCH)
        return two_views(map(self.data.batch, chunks), logits, self.config.training, device=self.device)

    def evaluate(self, split: str) -> dict[str, Any]:
        """Every score of section 4 on one split, plus the noise-free ELBO and its terms (nats a clip).

        The views of `invariant_information` have a seed of their own: two models are scored on the same ones.
        """
        rows = self.features.splits[split]
        return self._scores(rows, self.infer(rows))

    def _scores(self, rows: NDArray[np.int64], out: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
        scores = metrics.evaluate(
            probabilities=out["probabilities"],
            x=self.features.x[rows].reshape(len(rows), -1),
            z=out["mean"],
            labels=self.features.labels(rows),
            nuisances=self.features.nuisances(rows),
            views=self._two_views(rows),
            device=self.device,
        )
        terms = {name: float(out[name].mean(dtype=np.float64)) for name in ("recon", "kl_y", "kl_z")}
        active = metrics.active_units(out["mean"])
        own = {"elbo": -sum(terms.values()), "active_units": active, "macs": self.model.macs}
        return {**scores, **terms, **own}

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as tensors and plain values for `checkpoint.save`."""
        return {
            "format": STATE_FORMAT,
            "config_hash": self.config.hash(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "train_seconds": self.train_seconds,
            "last_report": self.last_report,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "noise": self.noise.get_state(),
            "clusters": self.clusters,
            "normaliser": self.features.normaliser.to_dict(),  # new recordings are made like the training's by it
            "others": [other.state_dict() for other in self.others],
            "turn": None if self.turn is None else asdict(self.turn),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues where `state` was taken.

        Raises:
            CatuvacError: the state belongs to another configuration or another version's format, or is no state.
        """
        for key, ours in (("format", STATE_FORMAT), ("config_hash", self.config.hash())):
            given = state.get(key) if isinstance(state, Mapping) else None
            if given != ours:
                raise CatuvacError(f"the checkpoint has {key} {given!r:.80}, and this run has {ours!r}")
        try:
            self._load_state(state)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CatuvacError("the checkpoint is not a state of such a run") from error

    def _load_state(self, state: Mapping[str, Any]) -> None:
        checkpoint.fill(self.model, state["model"], "the checkpoint holds a model of another shape")
        self.others = self.others[: len(state["others"])]
        for other, weights in zip(self.others, state["others"], strict=True):
            other.load_state_dict(weights)
        self.optimizer = self._new_optimizer()
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # the state may be of a run on another device
            group["capturable"] = self.device.type == "cuda"
        self._go_on_drawing(state)
        self.epoch, self.last_report = state["epoch"], state["last_report"]
        self.seconds, self.train_seconds = state["seconds"], state["train_seconds"]
        turn = state.get("turn")  # a state from before there were branches has none
        self.turn = None if turn is None else Turn(**turn)
        self.step = self._new_step()  # a graph would go on with the tensors that the optimiser had

    def from_shared_start(
        self, load: Callable[[], Mapping[str, Any] | None], save: Callable[[Mapping[str, Any]], None]
    ) -> Iterator[Report]:
        """Trains to the end, from a start by invariance that another training has left, or leaves its own.

        On a CPU the result is the same to the bit. Trainings that begin at the same time each train the start: waiting
        for one of them would be no faster.

        Args:
            load: the start of `Config.start_hash`; None where none has been left, or it cannot be read.
            save: keeps this training's start for others.
        """
        start = self.config.training.start_epochs
        if self.epoch < start:
            with contextlib.suppress(CatuvacError):  # there is none, or one of another version
                self.take_start(load() or {})
        if self.epoch < start:
            yield from self.until(start)
            if not self.finished and (state := self.start_state()) is not None:
                save(state)
        yield from self

    def start_state(self) -> dict[str, Any] | None:
        """What the start by invariance has left, for `take_start`; None unless the last epoch was the last of it."""
        if not self.config.training.start_epochs == self.epoch > 0:
            return None
        return {
            "format": STATE_FORMAT,
            "start_hash": self.config.start_hash(),
            "epoch": self.epoch,
            "encoder_y": copy.deepcopy(self.starts[0].state_dict()),  # the training goes on with the tensors
            "order": self.order.get_state(),
            "noise": self.noise.get_state(),
            "clusters": self.clusters,
        }

    def take_start(self, state: Mapping[str, Any]) -> None:
        """Goes on from the start of another training as from one's own: on a CPU to the same bits.

        Raises:
            CatuvacError: the state is of another start, or none; the run is then as it was.
        """
        if (state.get("format"), state.get("start_hash")) != (STATE_FORMAT, self.config.start_hash()):
            raise CatuvacError("the state is not that of such a start")
        checkpoint.fill(self.starts[0], state["encoder_y"], "the start is of a model of another shape")
        self.others = []
        self._go_on_drawing(state)
        self.epoch = state["epoch"]
        self._renew()

    def _go_on_drawing(self, state: Mapping[str, Any]) -> None:
        """Puts the generators, and the clusters that churn is told from, where they were."""
        self.order.set_state(state["order"].cpu())
        self.noise.set_state(state["noise"].cpu())
        self.clusters = None if state["clusters"] is None else state["clusters"].cpu()

    def branch(self, state: Mapping[str, Any], parent: Config) -> None:
        """Continues another training from where `state` was taken, with this run's end of the temperature.

        The temperature goes on from what the other one has reached, down to this run's `tau_end`. A branch that changes
        nothing is the other training, bit for bit. The time counts from the branch on.

        Args:
            state: of a training that has not ended, and that is no branch itself.
            parent: the settings of that training.

        Raises:
            ValueError: the state is not the parent's, has ended, is a branch, or has reached a temperature below this
                run's `tau_end`; the settings differ in more than `AFTER_BRANCH`; or another version's format.
        """
        changed = set(differences(parent, self.config))
        if others := sorted(changed - set(AFTER_BRANCH)):
            allowed = " and ".join(AFTER_BRANCH)
            raise ValueError(f"a branch may change {allowed} alone, and this one has another {others[0]}")
        if state["config_hash"] != parent.hash():
            raise ValueError(f"checkpoint has config_hash {state['config_hash']}, the parent has {parent.hash()}")
        epoch = state["epoch"]
        if epoch >= parent.training.epochs or state.get("turn") is not None:
            raise ValueError("a branch needs the state of a training that has not ended and is no branch itself")
        tau = parent.training.tau_at(epoch=epoch, steps=self.steps[1])
        if changed and self.config.training.tau_end > tau:
            raise ValueError(
                f"the parent has reached tau {tau:.4g} after epoch {epoch}, and the temperature only falls: "
                f"tau_end must not be above it, got {self.config.training.tau_end:.4g}"
            )
        # Adam goes on with the tensors that it is given, and other branches start from the same state.
        optimizer = copy.deepcopy(state["optimizer"])
        self.load_state({**state, "config_hash": self.config.hash(), "optimizer": optimizer})
        self.turn = Turn(epoch, tau) if changed else None
        self.seconds = self.train_seconds = 0.0
