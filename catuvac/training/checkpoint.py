"""Saving and loading states without pickle's power: a checkpoint from a stranger must not run code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from catuvac.errors import CatuvacError
from catuvac.io import replacing


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes tensors, numbers and strings in nested dicts and lists; atomic: a kill leaves the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()  # torch, writing to a disk that is full, hides that it is
    torch.save(dict(state), buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what `save` wrote, with `weights_only=True`.

    Raises:
        CatuvacError: the file is absent, damaged, or holds more than tensors and plain values.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise CatuvacError(f"cannot read checkpoint {path}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CatuvacError(
            f"checkpoint {path} is damaged or not one of ours ({reason}); delete it to start anew"
        ) from error
    return state
