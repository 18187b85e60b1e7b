"""Saves and loads states without pickle's power: a checkpoint from an untrusted source must not run code."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from catuvac.errors import CatuvacError
from catuvac.io import write

ADVICE = "delete it to train from the start"
# Raised by the readers of zip archives and torch's states for a file of another format or a damaged one.
_NOT_OURS = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OSError,
)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes tensors, numbers and strings in nested dicts and lists atomically: a kill leaves the old or the new file.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()  # torch hides that a disk is full when it writes to it
    torch.save(dict(state), buffer)
    write(path, buffer.getbuffer())


def load(path: Path, *, device: torch.device | str = "cpu", advice: str = ADVICE) -> dict[str, Any]:
    """Reads what `save` wrote, with `weights_only=True`, and checks every checksum in it.

    Args:
        path: of the file.
        device: where to put its tensors.
        advice: what to do about a damaged one, after a semicolon.

    Raises:
        CatuvacError: the file is absent, damaged, or contains more than tensors and plain values.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise CatuvacError(f"cannot read checkpoint {path}: {error.strerror or error}") from error
    with file:
        try:
            _check_sums(file)
            state = torch.load(file, map_location=device, weights_only=True)
        except _NOT_OURS as error:  # torch's message for a state with code in it advises running that code
            raise CatuvacError(f"checkpoint {path} is damaged or not one of ours; {advice}") from error
    if not isinstance(state, dict):
        raise CatuvacError(f"checkpoint {path} is not one of ours: it contains no named state; {advice}")
    return state


def load_weights(path: Path, model: nn.Module, *, advice: str = ADVICE) -> None:
    """Loads the weights that `save` wrote into a model.

    Raises:
        CatuvacError: as `load`, or the weights belong to a model of another shape.
    """
    fill(model, load(path, advice=advice), f"{path} does not fit the settings next to it; {advice}")


def fill(module: nn.Module, weights: Any, message: str) -> None:
    """Loads weights with a module's names and shapes; raises `CatuvacError`, and changes nothing, if they differ."""
    current = module.state_dict()
    given = weights if isinstance(weights, Mapping) else {}
    shapes = {name: value.shape if isinstance(value, torch.Tensor) else None for name, value in given.items()}
    if shapes != {name: value.shape for name, value in current.items()}:
        raise CatuvacError(message)
    module.load_state_dict(given)


def _check_sums(file: IO[bytes]) -> None:
    """Verifies the CRC-32 of each record of a state's archive, which torch writes but does not read."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"record {damaged} has changed")
    file.seek(0)
