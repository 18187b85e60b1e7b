"""The core training function: a generator of flat reports that the command line, Ray and a notebook all consume.

    run = TrainingRun(Config(), features)
    for report in run:              # one flat report per evaluation
        checkpoint.save(path, run.state())

It depends neither on files nor on Ray. On a CPU, the seed and the number of threads determine the result bit for bit,
and a run that loads a `state` ends with the same weights as one that never stopped. On CUDA this needs the setting
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
from scipy.special import softmax
from sklearn.decomposition import PCA
from torch import Tensor

from catuvac.config import Config, ConfigError, ModelConfig, Precision, TrainingConfig, differences
from catuvac.data.store import ByClip, FeatureSet, Float
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
SMALLEST_SIGMA = 1e-3  # keeps the likelihood finite when all features are alike
EVAL_BATCH = 256  # clips; evaluation keeps no activations, so larger than a training batch
VIEW_SEED = 0  # of the views on which the score is computed: the same for every model
AFTER_BRANCH = ("tau_end", "tau_schedule")  # settings that a branch may change
MODELS: dict[str, Callable[..., VariationalModel]] = {"cat_uvac": CatUVAC, "uvac": UVAC}


def use_bf16(precision: Precision, device: torch.device, n_bands: int) -> bool:
    """Returns whether autocast should compute in bfloat16: "auto" asks the device, "float32" never does.

    Raises:
        ConfigError: bfloat16 was requested, and the CPU library computes it incorrectly.
    """
    if device.type == "cuda":
        return precision == "bf16" or (precision == "auto" and torch.cuda.is_bf16_supported(including_emulation=False))
    # oneDNN 3.11 (torch 2.12) returns garbage from a strided bf16 convolution onto a grid one column wide.
    wrong = n_bands == GRID
    if precision == "bf16" and wrong:
        raise ConfigError(f"bf16 gives wrong results on the CPU for F = {n_bands} bands; use float32, or more bands")
    # Without AMX or AVX512-BF16 instructions bfloat16 is emulated and slower than float32.
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return precision == "bf16" or (precision == "auto" and native and not wrong)


def with_sigma(config: ModelConfig, features: FeatureSet) -> ModelConfig:
    """Replaces sigma 0 by the deviation per cell that d principal axes of the training features leave unexplained.

    That is the noise of probabilistic PCA (Tipping and Bishop 1999, eq. 8): d dimensions of z are then worth their KL.
    Labels are not used. The average is over all cells, padded bands and frames included, which the likelihood does not
    count: for padded features sigma is smaller than the deviation per cell that counts.
    """
    if config.likelihood != "gaussian" or config.sigma > 0:
        return config
    x = features.x[features.splits["train"]].reshape(len(features.splits["train"]), -1)
    axes = min(config.latent_dim, len(x) - 1)
    explained = PCA(axes, svd_solver="randomized", random_state=0).fit(x).explained_variance_.sum()
    variance = (x.var(axis=0, ddof=1).sum() - explained) / (x.shape[1] - axes)
    # Rounding makes it negative if the axes explain everything.
    return replace(config, sigma=max(math.sqrt(max(variance, 0.0)), SMALLEST_SIGMA))


def two_views(
    batches: Iterable[tuple[Tensor, Tensor]],
    logits: Callable[[Tensor], Tensor],
    config: TrainingConfig,
    *,
    device: torch.device,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the probabilities `[n, K]` of two views of each clip. The views are the same for every model.

    Args:
        batches: x `[B, 1, T, F]` and the cells that count, as `DeviceFeatures.batch` returns them.
        logits: maps x to `[B, K]`.
        config: sets the kind of views and how far they differ from their clips.
        device: where the batches are.
    """
    generator = torch.Generator(device).manual_seed(VIEW_SEED)
    views, strength = VIEWS[config.views], config.view_strength
    parts: list[Tensor] = []
    with torch.no_grad(), kernels(device, deterministic=config.deterministic):
        for x, cells in batches:
            pair = [view(x, cells, views, strength=strength, generator=generator) for _ in range(2)]
            parts.append(torch.stack([torch.softmax(logits(x_view).float(), dim=-1) for x_view in pair]))
    one, other = torch.cat(parts, dim=1).cpu().numpy()
    return one, other


def mean_probabilities(clips: ByClip, windows: NDArray[Float]) -> NDArray[Float]:
    """Returns the probabilities `[m, K]` of clips: the softmax of the mean logits of their windows, `[n, K]`."""
    logits = np.log(np.maximum(windows, np.finfo(np.float32).tiny))  # up to a constant per window, which cancels
    return np.asarray(softmax(clips.means(logits), axis=1), dtype=windows.dtype)


@dataclass(frozen=True)
class Turn:
    """Where a branch has left its parent's temperature schedule."""

    epoch: int  # number of finished epochs
    tau: float  # of the next step


class TrainingRun:
    """One training: model, optimiser, noise and position in the schedule. Iterate over it to train."""

    def __init__(self, config: Config, features: FeatureSet, *, device: torch.device | str = "cpu") -> None:
        """Puts the features on the device and initialises the weights from the seed.

        Args:
            config: everything that decides the result.
            features: x `[N, T, F]`, activity mask `[N, T]`, splits; labels are used only by the metrics.
            device: where to train.
        """
        self.config = config
        self.features = features
        self.device = torch.device(device)
        if self.device.type == "cpu":
            disable_trimming()
        n_frames, n_bands = features.x.shape[1:]
        self.bf16 = use_bf16(config.training.precision, self.device, n_bands)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # the weights must not depend on, or disturb, the caller's random state
            torch.manual_seed(config.training.seed)
            model = MODELS[config.model.method](with_sigma(config.model, features), n_frames=n_frames, n_bands=n_bands)
            others = [self._other_start(model, number) for number in range(1, config.training.n_init)]
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Further starts of q(y | x); the first is the model's own. Empty once one is chosen.
        self.others = [other.to(self.device, memory_format=torch.channels_last) for other in others]  # type: ignore[call-overload]
        self.optimizer = self._new_optimizer()
        self.order = torch.Generator().manual_seed(config.training.seed)
        self.noise = torch.Generator(self.device).manual_seed(config.training.seed + 1)
        self.epoch = 0
        self.seconds = 0.0  # of training and evaluation, summed over all resumed runs
        self.train_seconds = 0.0  # the part of it in training steps
        self.last_report: Report = {}
        self.data = DeviceFeatures(features, device=self.device)
        self.step = self._new_step()
        self.train_rows = torch.from_numpy(features.splits["train"])
        self.clusters: Tensor | None = None  # [n] of the validation clips at the last evaluation
        self.turn: Turn | None = None  # of a branch whose temperature settings differ from its parent's

    @property
    def finished(self) -> bool:
        """True after the last epoch, and after a divergence."""
        return bool(self.last_report) and self.last_report["status"] != "running"

    def __iter__(self) -> Iterator[Report]:
        """Trains to the end, yielding a report at each evaluation; a finished run yields its last report again."""
        return self.until(self.config.training.epochs)

    def until(self, epoch: int) -> Iterator[Report]:
        """Trains like iteration does, but stops once `epoch` epochs are finished; can be continued at any time."""
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
            # Reading the losses waits for a GPU, which should run without pause between evaluations.
            if not due and self.device.type == "cuda":
                continue
            losses = self._losses()
            diverged = not all(math.isfinite(value) for value in losses.values())
            if not (diverged or due):
                continue
            scores = self._floors("val") | {"churn": None} if diverged else self._validate()
            diverged = scores["elbo"] is None  # also if the losses are finite, but a score is not
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
            began = time.perf_counter()  # the caller's work with a report does not count
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
        """The encoders q(y | x): the model's own, and the other starts until one of them is chosen."""
        encoder = self.model.cluster_encoder
        return [] if encoder is None else [encoder, *self.others]

    def _new_optimizer(self) -> torch.optim.Adam:
        return torch.optim.Adam(
            self._parameter_groups(),
            lr=self.config.training.lr_start,
            fused=True,
            capturable=self.device.type == "cuda",
        )

    @property
    def invariance(self) -> Invariance:
        """The invariance term as set; in the warm-up nothing else trains q(y | x), so that any weight works."""
        training = self.config.training
        warming = 1.0 if training.cluster_init == "invariance" else 0.0
        return Invariance(
            VIEWS[training.views],
            training.view_strength,
            {"start": warming, "warm_up": warming, "main": training.invariance},
        )

    @property
    def phase(self) -> Phase:
        """The phase of the next epoch."""
        training = self.config.training
        if self.epoch < training.start_epochs:
            return "start"
        return "warm_up" if self.epoch < training.warmup_epochs else "main"

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Separates q(y | x) from the rest: its learning rate differs after the warm-up."""
        starts = [list(start.parameters()) for start in self.starts]
        of_y = {id(parameter) for start in starts for parameter in start}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in of_y]
        return [{"params": parameters} for parameters in (rest, *starts)]

    def _other_start(self, model: VariationalModel, number: int) -> ConvRecurrentEncoder:
        """Draws a further start from a seed of its own, so that it does not depend on the sizes of other networks."""
        torch.manual_seed(int(np.random.SeedSequence((self.config.training.seed, number)).generate_state(1)[0]))
        return model.new_cluster_encoder()

    def _start_clusters(self) -> None:
        """Prepares what the next epoch starts from, if anything.

        That is the clustering that the warm-up teaches q(y | x), the best of the starts trained by invariance, or,
        after the warm-up, the mixture of UVAC.
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
        """Continues with the start with the highest invariant information on training clips; uses no labels."""
        rows = self.features.splits["train"][:MAX_CLIPS]
        scores = [metrics.invariant_information(*self._two_views(rows, start)) for start in self.starts]
        self.starts[0].load_state_dict(self.starts[int(np.argmax(scores))].state_dict())
        self.others = []
        self._renew()

    def _renew(self) -> None:
        """Continues with a fresh optimiser for the current weights."""
        self.optimizer = self._new_optimizer()
        self.step = self._new_step()

    def _train_epoch(self) -> tuple[float, float]:
        """Runs one pass over the training clips; returns the last tau and lr."""
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
        """Returns the temperature of a step of the next epoch."""
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
        """Clips per step and steps per epoch: the incomplete last batch is dropped, with other clips in each epoch."""
        batch = min(self.config.training.batch_size, len(self.train_rows))
        return batch, len(self.train_rows) // batch

    def _losses(self) -> dict[str, float]:
        """Returns the mean losses of the terms of the last epoch in nats per clip; waits for the device."""
        began = time.perf_counter()
        losses = dict(zip(LOSSES, (self.step.sums / self.steps[1]).tolist(), strict=True))
        self.train_seconds += time.perf_counter() - began
        phase = self.step.phase
        absent = {*LOSSES[:-1]} if phase == "start" else set()
        if not self.invariance.weights[phase]:
            absent.add("invariance")
        return {name: value for name, value in losses.items() if name not in absent}

    def _floors(self, split: str) -> dict[str, Any]:
        """Returns the keys of `evaluate(split)` for a diverged run: stated worst values, or None without one."""
        rows = self.features.splits[split]
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
            **dict.fromkeys(("recon", "kl_y", "kl_z", "elbo")),
        }

    def _validate(self) -> dict[str, Any]:
        """Returns `evaluate("val")` and churn: the share of clips that changed cluster since the last evaluation."""
        rows = self.features.splits["val"]
        out = self.infer(rows)
        before, self.clusters = self.clusters, torch.from_numpy(out["probabilities"].argmax(axis=1))
        churn = None if before is None else float((before != self.clusters).float().mean())
        return {**self._scores("val", out), "churn": churn}

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
        """Returns the probabilities `[n, K]` of two views of each clip, by the model or by one of its starts."""
        module = self.model if encoder is None else encoder
        module.eval()

        def logits(x: Tensor) -> Tensor:
            with self.step.autocast():
                out: Tensor = self.model.cluster_logits(x) if encoder is None else encoder(split_pixels(x))
                return out

        chunks = torch.split(torch.from_numpy(rows).to(self.device), EVAL_BATCH)
        return two_views(map(self.data.batch, chunks), logits, self.config.training, device=self.device)

    def evaluate(self, split: str) -> dict[str, Any]:
        """Computes every score of the design's section 4, the noise-free ELBO and its terms (nats per clip) on a split.

        A clip of several windows has the mean of their logits, features and posterior means, and the sum of their nats.

        The views of `invariant_information` have a fixed seed, so that all models are scored on the same ones. If a
        score or an output is not finite, the scores are those of a diverged run.
        """
        return self._scores(split, self.infer(self.features.splits[split]))

    def _scores(self, split: str, out: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
        rows = self.features.splits[split]
        x, views, nats = self.features.x[rows].reshape(len(rows), -1), self._two_views(rows), ("recon", "kl_y", "kl_z")
        if not all(np.isfinite(values).all() for values in (*out.values(), *views)):
            return self._floors(split)
        if clips := self.features.by_clip(rows):
            views = mean_probabilities(clips, views[0]), mean_probabilities(clips, views[1])
            out = {
                "probabilities": mean_probabilities(clips, out["probabilities"]),
                "mean": clips.means(out["mean"]),
                **{name: clips.sums(out[name]) for name in nats},
            }
            x, rows = clips.means(x), clips.rows
        scores = metrics.evaluate(
            probabilities=out["probabilities"],
            x=x,
            z=out["mean"],
            labels=self.features.labels(rows),
            nuisances=self.features.nuisances(rows),
            views=views,
            device=self.device,
        )
        terms = {name: float(out[name].mean(dtype=np.float64)) for name in nats}
        active = metrics.active_units(out["mean"])
        model = {"elbo": -sum(terms.values()), "active_units": active, "macs": self.model.macs}
        scores = {**scores, **terms, **model}
        return scores if all(map(math.isfinite, scores.values())) else self._floors(split)

    def state(self) -> dict[str, Any]:
        """Returns all that the rest of the training depends on, as tensors and plain values for `checkpoint.save`."""
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
            "normaliser": self.features.normaliser.to_dict(),  # to normalise new recordings like the training's
            "others": [other.state_dict() for other in self.others],
            "turn": None if self.turn is None else asdict(self.turn),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues where `state` was taken.

        Raises:
            CatuvacError: the state belongs to another configuration or another version's format, or is not a state.
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
        checkpoint.fill(self.model, state["model"], "the checkpoint contains a model of another shape")
        self.others = self.others[: len(state["others"])]
        for other, weights in zip(self.others, state["others"], strict=True):
            other.load_state_dict(weights)
        self.optimizer = self._new_optimizer()
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # the state may be of a run on another device
            group["capturable"] = self.device.type == "cuda"
        self._restore_draws(state)
        self.epoch, self.last_report = state["epoch"], state["last_report"]
        self.seconds, self.train_seconds = state["seconds"], state["train_seconds"]
        turn = state.get("turn")  # states older than branches have none
        self.turn = None if turn is None else Turn(**turn)
        self.step = self._new_step()  # a graph would continue with the old optimiser's tensors

    def from_shared_start(
        self, load: Callable[[], Mapping[str, Any] | None], save: Callable[[Mapping[str, Any]], None]
    ) -> Iterator[Report]:
        """Trains to the end from a start by invariance that another training has saved, or saves its own.

        On a CPU the result is the same bit for bit. Trainings that begin at the same time each train the start: waiting
        for one of them would not be faster.

        Args:
            load: returns the start of `Config.start_hash`; None if there is none, or it cannot be read.
            save: saves this training's start for others.
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
        """Returns the result of the start by invariance for `take_start`; None unless its last epoch has just ended.

        None as well while the best of several starts is not chosen yet, as after a start of a single epoch.
        """
        if self.others or not self.config.training.start_epochs == self.epoch > 0:
            return None
        return {
            "format": STATE_FORMAT,
            "start_hash": self.config.start_hash(),
            "epoch": self.epoch,
            "encoder_y": copy.deepcopy(self.starts[0].state_dict()),  # the training continues with the tensors
            "order": self.order.get_state(),
            "noise": self.noise.get_state(),
            "clusters": self.clusters,
        }

    def take_start(self, state: Mapping[str, Any]) -> None:
        """Continues from another training's start as from this run's own: on a CPU bit for bit.

        Raises:
            CatuvacError: the state belongs to another start, or is not one; the run is then unchanged.
        """
        if (state.get("format"), state.get("start_hash")) != (STATE_FORMAT, self.config.start_hash()):
            raise CatuvacError("the state does not belong to this start")
        checkpoint.fill(self.starts[0], state["encoder_y"], "the start belongs to a model of another shape")
        self.others = []
        self._restore_draws(state)
        self.epoch = state["epoch"]
        self._renew()

    def _restore_draws(self, state: Mapping[str, Any]) -> None:
        """Restores the generators, and the clusters from which churn is computed."""
        self.order.set_state(state["order"].cpu())
        noise = state["noise"].cpu()
        if noise.shape == self.noise.get_state().shape:
            self.noise.set_state(noise)
        else:  # a state from another kind of device, whose numbers this one cannot continue
            self.noise.manual_seed(self.config.training.seed + 1 + state["epoch"])
        self.clusters = None if state["clusters"] is None else state["clusters"].cpu()

    def branch(self, state: Mapping[str, Any], parent: Config) -> None:
        """Continues another training, the parent, from where `state` was taken, but to this run's final temperature.

        The temperature continues from what the parent has reached, down to this run's `tau_end`. A branch that changes
        nothing equals its parent bit for bit. Times count from the branch on.

        Args:
            state: of a training that has not ended, and that is not a branch itself.
            parent: the settings of that training.

        Raises:
            ValueError: the state is not the parent's, has ended, is a branch, or has reached a temperature below this
                run's `tau_end`; the settings differ in more than `AFTER_BRANCH`; or another version's format.
        """
        changed = set(differences(parent, self.config))
        if others := sorted(changed - set(AFTER_BRANCH)):
            allowed = " and ".join(AFTER_BRANCH)
            raise ValueError(f"a branch may change only {allowed}, and this one changes {others[0]}")
        if state["config_hash"] != parent.hash():
            raise ValueError(f"checkpoint has config_hash {state['config_hash']}, the parent has {parent.hash()}")
        epoch = state["epoch"]
        if epoch >= parent.training.epochs or state.get("turn") is not None:
            raise ValueError("a branch needs the state of a training that has not ended and is not a branch itself")
        tau = parent.training.tau_at(epoch=epoch, steps=self.steps[1])
        if changed and self.config.training.tau_end > tau:
            raise ValueError(
                f"the parent has reached tau {tau:.4g} after epoch {epoch}, and the temperature only falls: "
                f"tau_end must not be above it, got {self.config.training.tau_end:.4g}"
            )
        # Adam updates the tensors that it is given, and other branches start from the same state.
        optimizer = copy.deepcopy(state["optimizer"])
        self.load_state({**state, "config_hash": self.config.hash(), "optimizer": optimizer})
        self.turn = Turn(epoch, tau) if changed else None
        self.seconds = self.train_seconds = 0.0
