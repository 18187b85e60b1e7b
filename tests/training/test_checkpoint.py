from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from catuvac.errors import CatuvacError
from catuvac.training import checkpoint


def test_round_trip(tmp_path: Path) -> None:
    state = {"epoch": 3, "weights": {"a": torch.arange(4.0)}, "report": {"tau": 0.5, "status": "running", "x": None}}
    path = tmp_path / "new" / "checkpoint.pt"
    checkpoint.save(path, state)
    loaded = checkpoint.load(path)
    assert torch.equal(loaded["weights"]["a"], state["weights"]["a"])  # type: ignore[index]
    assert loaded["report"] == state["report"]
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"epoch": 1})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        checkpoint.save(path, {"epoch": 2, "function": lambda: None})
    assert checkpoint.load(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_strangers_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "ran"),))

    path = tmp_path / "bomb.pt"
    torch.save({"epoch": Bomb()}, path)
    with pytest.raises(CatuvacError, match="damaged or not one of ours"):
        checkpoint.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_changed_weight_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"weights": torch.arange(1000.0)})
    whole = path.read_bytes()
    place = whole.index(torch.arange(1000.0).numpy().tobytes())
    path.write_bytes(whole[: place + 99] + bytes([whole[place + 99] ^ 1]) + whole[place + 100 :])
    assert not torch.equal(torch.load(path)["weights"], torch.arange(1000.0))  # torch itself reads on
    with pytest.raises(CatuvacError, match="damaged") as caught:
        checkpoint.load(path)
    assert "weights_only" not in str(caught.value)  # no advice to load it unsafely


def test_weights_of_another_shape_change_nothing(tmp_path: Path) -> None:
    path, model = tmp_path / "weights.pt", torch.nn.Linear(2, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for other in ({}, {"weight": torch.zeros(3, 2)}, torch.nn.Linear(3, 3).state_dict(), {**before, "bias": 3}):
        checkpoint.save(path, other)
        with pytest.raises(CatuvacError, match="does not fit the settings"):
            checkpoint.load_weights(path, model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_damaged_and_absent_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CatuvacError, match="damaged") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(CatuvacError, match="No such file"):
        checkpoint.load(tmp_path / "absent.pt")
