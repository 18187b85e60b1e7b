"""One training step: gather the clips, forward, backward, clip the gradient, Adam; losses stay on the device.

The network is so small that a GPU finishes a kernel before Python can launch the next one. On CUDA the step is
therefore captured once as a graph, which an epoch replays: tau, the learning rates and the clips' row numbers are
device tensors that change between replays, and nothing waits for the device until the losses are read.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from catuvac.data.store import FeatureSet
from catuvac.errors import first_line
from catuvac.models.fast_conv import split_pixels
from catuvac.models.networks import ConvRecurrentEncoder
from catuvac.models.variational import VariationalModel
from catuvac.training.augment import Views, view
from catuvac.training.invariance import swap_loss

LOSSES = ("total", "recon", "kl_y", "kl_z", "invariance")
EAGER_STEPS = 3  # before a capture: libraries choose kernels and allocate workspaces, which is impossible in a capture


# start: only q(y|x) learns, by invariance; warm_up: the ELBO trains the other networks, and does not reach q(y|x).
Phase = Literal["start", "warm_up", "main"]


@dataclass(frozen=True)
class Invariance:
    """The views of a clip that should share a cluster, and the term's weight in each phase of a training."""

    views: Views
    strength: float
    weights: dict[Phase, float]


class DeviceFeatures:
    """The feature tensors, resident on the device; batches are gathered by index."""

    def __init__(self, features: FeatureSet, *, device: torch.device) -> None:
        with warnings.catch_warnings():
            # The memory map is read-only and shared between trials, and nothing here writes to it.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.x = torch.from_numpy(features.x).to(device)  # [N, T, F]
            self.mask = torch.from_numpy(features.mask).to(device)  # [N, T]
        self.bands = (torch.arange(features.x.shape[2]) < features.n_bands).to(device)  # [F]

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x `[B, 1, T, F]` and the cells that count, `[B, 1, T, F]` of 0 and 1."""
        cells = self.mask[rows][:, None, :, None] & self.bands
        return self.x[rows][:, None], cells.float()


class TrainingStep:
    """The eager step, which a CPU runs."""

    def __init__(
        self,
        model: VariationalModel,
        optimizer: torch.optim.Adam,
        data: DeviceFeatures,
        *,
        noise: torch.Generator,
        bf16: bool,
        grad_clip: float,
        invariance: Invariance,
        starts: Sequence[ConvRecurrentEncoder] = (),
    ) -> None:
        self.model = model
        self.invariance = invariance
        self.starts = starts  # encoders q(y|x): the model's own, and others that learn alongside in phase "start"
        self.optimizer = optimizer
        self.data = data
        self.noise = noise
        self.bf16 = bf16
        self.grad_clip = grad_clip
        self.phase: Phase = "main"  # of the last step
        self.start: Tensor | None = None  # [N] clusters that q(y | x) is taught during the warm-up
        self.sums = torch.zeros(len(LOSSES), device=data.x.device)

    def __call__(self, rows: Tensor, *, tau: float, lrs: Sequence[float], phase: Phase = "main") -> None:
        """Trains on the clips `rows` `[B]`, on the device, and adds their mean losses in nats per clip to `sums`.

        Args:
            rows: of the feature set.
            tau: Gumbel-Softmax temperature.
            lrs: one learning rate per parameter group of the optimiser.
            phase: what learns; in a warm-up q(y | x) is taught the clusters of `start`, if there are any.
        """
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
        self.phase = phase
        self._compute(rows, tau, phase)

    def _compute(self, rows: Tensor, tau: float | Tensor, phase: Phase) -> None:
        x, cells = self.data.batch(rows)
        losses = dict.fromkeys(LOSSES, self.sums.new_zeros(()))
        total = self.sums.new_zeros(())
        logits: Tensor | None = None
        if phase != "start":
            with self.autocast():
                terms, logits = self.model.negative_elbo(x, cells, tau=tau, generator=self.noise)
            losses |= {name: getattr(terms, name).detach() for name in ("total", "recon", "kl_y", "kl_z")}
            total = terms.total
            if phase == "warm_up" and self.start is not None:
                total = total + F.cross_entropy(logits, self.start[rows])  # which does reach q(y | x)
        if weight := self.invariance.weights[phase]:
            swaps = self._swaps(x, cells) if logits is None else [self._swap(x, cells, logits)]
            losses["invariance"] = swaps[0].detach()
            total = total + weight * torch.stack(swaps).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        # Each group separately: a decoder's gradient, of hundreds of nats, would scale that of q(y | x) down.
        for group in self.optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], self.grad_clip)
        self.optimizer.step()
        self.sums += torch.stack([losses[name] for name in LOSSES])

    def _swap(self, x: Tensor, cells: Tensor, logits: Tensor) -> Tensor:
        """Returns the invariance loss between the clips, whose logits `[B, K]` the ELBO has computed, and one view."""
        with self.autocast():
            other = self.starts[0](split_pixels(self.view(x, cells, self.noise)))
        return swap_loss(logits, other)

    def _swaps(self, x: Tensor, cells: Tensor) -> list[Tensor]:
        """Returns the invariance loss of each start on two views of the clips; all starts share the views."""
        pixels = split_pixels(torch.cat([self.view(x, cells, self.noise), self.view(x, cells, self.noise)]))
        losses = []
        for encoder in self.starts:
            with self.autocast():
                logits = encoder(pixels)
            losses.append(swap_loss(*logits.chunk(2)))
        return losses

    def view(self, x: Tensor, cells: Tensor, generator: torch.Generator) -> Tensor:
        """Draws one view of each clip, `[B, 1, T, F]`; arguments as for `catuvac.training.augment.view`."""
        return view(x, cells, self.invariance.views, strength=self.invariance.strength, generator=generator)

    def autocast(self) -> torch.autocast:
        """Returns autocast to bfloat16, enabled if this run uses it."""
        return torch.autocast(self.sums.device.type, dtype=torch.bfloat16, enabled=self.bf16)


class GraphedStep(TrainingStep):
    """The step on CUDA: the first few are eager, and all later ones replay a graph of the step.

    The eager steps before a capture are ordinary steps of the training. If a capture is impossible, all steps are
    eager, after one warning.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.tau = torch.zeros((), device=self.sums.device)
        self.lrs = [torch.zeros((), device=self.sums.device) for _ in self.optimizer.param_groups]
        self.rows: Tensor | None = None  # [B]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.eager = 0  # eager steps since the rows' number or the phase last changed
        self.possible = True
        self.side = torch.cuda.Stream(self.sums.device)  # type: ignore[no-untyped-call]
        # Torch would warn of the eager steps before the capture.
        self.optimizer._warned_capturable_if_run_uncaptured = True

    def __call__(self, rows: Tensor, *, tau: float, lrs: Sequence[float], phase: Phase = "main") -> None:
        """As `TrainingStep`, without waiting for the device."""
        with torch.cuda.device(self.sums.device):  # streams and captures are those of the current device
            self._step(rows, tau, lrs, phase)

    def _step(self, rows: Tensor, tau: float, lrs: Sequence[float], phase: Phase) -> None:
        if self.rows is None or len(self.rows) != len(rows) or phase != self.phase:
            self.rows, self.graph, self.phase, self.eager = rows.clone(), None, phase, 0
        self.rows.copy_(rows)
        self.tau.fill_(tau)
        for group, lr_tensor, lr in zip(self.optimizer.param_groups, self.lrs, lrs, strict=True):
            lr_tensor.fill_(lr)
            group["lr"] = lr_tensor
        if self.graph is None and self.possible and self.eager >= EAGER_STEPS:
            self.graph = self._capture(self.rows)
        if self.graph is not None:
            self.graph.replay()
            return
        # On a separate stream, like a capture: libraries set their workspaces up per stream.
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            self._compute(self.rows, self.tau, phase)
        torch.cuda.current_stream().wait_stream(self.side)
        self.eager += 1

    def _capture(self, rows: Tensor) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.noise)  # every replay draws new numbers
        try:
            # Other threads of the process, such as Ray's, may continue to use the device.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._compute(rows, self.tau, self.phase)
        except RuntimeError as error:
            reason = first_line(error)
            warnings.warn(
                f"the training step cannot be captured as a CUDA graph ({reason}); kernels are launched one by one",
                stacklevel=2,
            )
            self.possible = False
            return None
        return graph


@contextlib.contextmanager
def kernels(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Selects CUDA's kernels: the fastest, found by benchmarking, or only those that give the same bits every time.

    On a CPU all kernels do, for a fixed number of threads.
    """
    if device.type != "cuda":
        yield
        return
    # cuBLAS gives the same bits if its workspace has a fixed size; this is its own default on an H100.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=not deterministic, deterministic=deterministic):
            yield
    finally:
        torch.use_deterministic_algorithms(before)
