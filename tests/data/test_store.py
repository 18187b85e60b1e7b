from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catuvac.config import PRESETS, Config
from catuvac.data import store
from catuvac.data.store import ENTRY
from catuvac.errors import CatuvacError

TREE = Config.from_dict(
    {
        "corpus": {"corpus": "folder", "folder_labels": True},
        "features": {"sample_rate": 8000, "window": 256, "hop": 128, "n_bands": 16},
        "split": {"val_fraction": 0.2, "test_fraction": 0.2},
        "model": {"n_clusters": 2},
    }
)

# A real preparation in a process of its own.
PREPARE = """
import sys
from pathlib import Path
from catuvac.config import PRESETS
from catuvac.data import store
if __name__ == "__main__":
    config = PRESETS["synthetic"].with_settings({"clips_per_class": int(sys.argv[2])})
    entry = store.prepare(config, data_root=None, cache_dir=Path(sys.argv[1]), workers=int(sys.argv[3]), progress=False)
    print(entry.path)
"""


def prepare(root: Path | None, cache: Path, config: Config = TREE, **options: Any) -> store.FeatureSet:
    settings = {"workers": 1, "progress": False} | options
    return store.prepare(config, data_root=root, cache_dir=cache, **settings)


def start(tmp_path: Path, *, clips_per_class: int, workers: int) -> subprocess.Popen[str]:
    script = tmp_path / "prepare.py"
    script.write_text(PREPARE)
    command = [sys.executable, str(script), str(tmp_path / "cache"), str(clips_per_class), str(workers)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(store.__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_prepare_delivers_features_labels_and_splits(tree: Path, tmp_path: Path) -> None:
    prepared = prepare(tree, tmp_path / "cache")
    assert prepared.x.shape == (12, 64, 16)  # 8000 // 128 + 1 = 63 frames, padded
    assert prepared.x.dtype == np.float32
    assert isinstance(prepared.x, np.memmap)
    assert not prepared.x.flags.writeable
    assert prepared.mask.shape == (12, 64)
    assert prepared.n_bands == 16
    assert prepared.note == "12 files in 2 labelled sub-folders"
    assert len(prepared.skipped) == 0
    assert prepared.clips["duration"].tolist() == pytest.approx([0.5 + 0.05 * n for n in range(6)] * 2)
    labels = prepared.labels(np.arange(12))
    assert labels is not None
    assert labels.tolist() == [0] * 6 + [1] * 6
    assert prepared.nuisances(np.arange(12)) == {}
    assert {name: len(rows) for name, rows in prepared.splits.items()} == {"train": 8, "val": 2, "test": 2}

    train = prepared.splits["train"]
    active = prepared.x[train][prepared.mask[train]]
    assert (active.min(), active.max()) == (0, 1)  # min-max of the training clips
    assert (prepared.x[~prepared.mask] == 0).all()
    # 300 Hz lies in a low mel band and 2 500 Hz in a high one.
    bands = np.array([prepared.x[row][prepared.mask[row]].mean(axis=0).argmax() for row in range(12)])
    assert (bands[:6] < 5).all()
    assert (bands[6:] > 8).all()


def test_an_entry_opens_alone(tree: Path, tmp_path: Path) -> None:
    prepared = prepare(tree, tmp_path / "cache")
    shutil.rmtree(tree)
    opened = store.open_entry(prepared.path)
    assert np.array_equal(opened.x, prepared.x)
    assert np.array_equal(opened.mask, prepared.mask)
    pd.testing.assert_frame_equal(opened.clips, prepared.clips)
    assert all(np.array_equal(opened.splits[name], rows) for name, rows in prepared.splits.items())
    with pytest.raises(CatuvacError, match="no prepared features"):
        store.open_entry(tmp_path)


def test_entries_follow_files_and_settings(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def entries() -> int:
        return len([path for path in cache.iterdir() if path.is_dir()])

    first = prepare(tree, cache)
    assert prepare(tree, cache).path == first.path
    assert prepare(tree, cache, TREE.with_settings({"seed": 5, "tau_end": 0.1})).path == first.path
    assert entries() == 2
    assert prepare(tree, cache, TREE.with_settings({"split_seed": 5})).path != first.path
    assert entries() == 3  # the same extraction
    assert prepare(tree, cache, TREE.with_settings({"hop": 100})).path != first.path
    assert entries() == 5
    os.utime(tree / "a" / "0.wav", ns=(0, 0))
    assert prepare(tree, cache).path != first.path
    assert entries() == 7


def test_a_recording_replaced_with_the_same_size_and_time_is_noticed(tree: Path, tmp_path: Path) -> None:
    before = prepare(tree, tmp_path / "cache")
    old, new = tree / "a" / "0.wav", tmp_path / "new.wav"
    soundfile.write(new, 0.3 * np.sin(np.arange(4000)), 8000)
    status = old.stat()
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(old)
    assert (old.stat().st_size, old.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = prepare(tree, tmp_path / "cache")
    assert not np.array_equal(after.x[0], before.x[0])


@pytest.mark.usefixtures("bad_files")
def test_workers_change_nothing(tree: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    alone, pooled = prepare(tree, tmp_path / "one"), prepare(tree, tmp_path / "two", workers=5)
    assert torch.get_num_threads() == before
    assert alone.path.name == pooled.path.name
    assert np.array_equal(alone.x, pooled.x)
    assert np.array_equal(alone.mask, pooled.mask)


def test_unusable_files_are_skipped_with_their_reason(tree: Path, bad_files: dict[str, Path], tmp_path: Path) -> None:
    prepared = prepare(tree, tmp_path / "cache")
    assert len(prepared.x) == len(prepared.clips) == 12
    assert prepared.note == "16 files in 2 labelled sub-folders; 4 skipped"
    assert dict(zip(prepared.skipped["path"], prepared.skipped["reason"], strict=True)) == {
        str(bad_files["empty"].resolve()): "empty file (0 bytes)",
        str(bad_files["junk"].resolve()): "unreadable: Format not recognised.",
        str(bad_files["nan"].resolve()): "contains NaN or infinite samples",
        str(bad_files["zero"].resolve()): "zero-length: no samples",
    }
    assert not set(prepared.clips["path"]) & set(prepared.skipped["path"])
    assert np.isfinite(prepared.x).all()
    assert prepared.labels(np.arange(12)).tolist() == [0] * 6 + [1] * 6  # type: ignore[union-attr]


@pytest.mark.usefixtures("bad_files")
def test_strict_makes_the_first_unusable_file_an_error(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    message = r"empty\.wav: empty file \(0 bytes\); repair or remove"
    with pytest.raises(CatuvacError, match=message):
        prepare(tree, cache, strict=True)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    prepare(tree, cache)
    with pytest.raises(CatuvacError, match=message):  # from the cache as well
        prepare(tree, cache, strict=True)


def test_no_usable_file(bad_files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CatuvacError, match=r"none of the 4 files can be used; the first: .*empty\.wav: empty file"):
        prepare(bad_files["empty"].parents[1], tmp_path / "cache")


def test_more_clusters_than_training_clips(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(CatuvacError, match="n_clusters=9 exceeds the 8 training clips"):
        prepare(tree, tmp_path / "cache", TREE.with_settings({"n_clusters": 9}))


def test_a_cache_that_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(CatuvacError, match=r"cannot use the cache .*cache: .*; free some space or choose another"):
        prepare(tree, tmp_path / "cache")


def test_default_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CATUVAC_CACHE", str(tmp_path))
    assert store.default_cache_dir() == tmp_path
    monkeypatch.delenv("CATUVAC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.default_cache_dir() == tmp_path / ".cache" / "catuvac"


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build_once(tmp_path, {"a": 1}, interrupted)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    entry = store.build_once(tmp_path, {"a": 1}, lambda folder: (folder / "whole").touch())
    assert sorted(path.name for path in entry.iterdir()) == ["checksums.json", "key.json", "whole"]
    assert store.build_once(tmp_path, {"a": 1}, interrupted) == entry  # not built again


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_preparation_leaves_nothing_half_valid(tmp_path: Path, end: signal.Signals) -> None:
    cache = tmp_path / "cache"
    process = start(tmp_path, clips_per_class=300, workers=2)
    wait_for(lambda: any(path.stat().st_size > 100_000 for path in cache.glob("*.tmp/x.npy")))
    process.send_signal(end)
    process.communicate(timeout=30)
    assert process.returncode != 0
    left = {path.suffix for path in cache.iterdir() if path.is_dir()}
    assert left == ({".tmp"} if end == signal.SIGKILL else set())

    config = PRESETS["synthetic"].with_settings({"clips_per_class": 300})
    prepared = prepare(None, cache, config)
    assert len(prepared.x) == 1500
    assert (prepared.x.reshape(1500, -1).max(axis=1) > 0).all()
    assert not list(cache.glob("*.tmp"))


def test_two_processes_build_once(tmp_path: Path) -> None:
    # Both ask for the same entry in the same moment: one builds it, the other waits and uses it.
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom catuvac.data.store import build_once\n"
        "def build(folder):\n"
        "    with open(sys.argv[1] + '/builds', 'a') as log: log.write('x')\n"
        "    time.sleep(0.5)\n"
        "Path(sys.argv[1], 'ready' + sys.argv[2]).touch()\n"
        "while len(list(Path(sys.argv[1]).glob('ready*'))) < 2: time.sleep(0.005)\n"
        "build_once(Path(sys.argv[1]) / 'cache', {}, build)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(store.__file__).parents[2])}
    racing = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(number)], env=environment)
        for number in range(2)
    ]
    assert [process.wait() for process in racing] == [0, 0]
    assert (tmp_path / "builds").read_text() == "x"


def whole(root: Path, cache: Path) -> dict[str, np.ndarray]:
    """What an undamaged preparation of `root` delivers."""
    entry = prepare(root, cache)
    return {"x": np.array(entry.x), "mask": entry.mask, **entry.splits}


def delivers(entry: store.FeatureSet, expected: dict[str, np.ndarray]) -> bool:
    found = {"x": entry.x, "mask": entry.mask, **entry.splits}
    return all(np.array_equal(found[name], values) for name, values in expected.items())


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_or_a_changed_byte_in_any_file_is_mended(data: st.DataObject, tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    expected = whole(tree, cache)
    prepared = prepare(tree, cache).path
    raw = next(path for path in cache.iterdir() if ENTRY.fullmatch(path.name) and path != prepared)
    path = data.draw(st.sampled_from(sorted([*prepared.iterdir(), *raw.iterdir()])))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    path.write_bytes(content)

    if path.parent == prepared:
        with pytest.raises(CatuvacError, match=r"are damaged .* run `catuvac prepare` again"):
            store.open_entry(prepared)
        assert store.reopen(prepared) is None
    else:
        shutil.rmtree(prepared)  # otherwise nothing of a raw entry is read
    entry = prepare(tree, cache)
    assert delivers(entry, expected)
    assert entry.path == prepared
    assert path.parent.with_suffix(".damaged").is_dir()


@pytest.mark.parametrize("name", ["x.npy", "clips.parquet", "checksums.json", "key.json"])
def test_a_missing_file_is_mended(tree: Path, tmp_path: Path, name: str) -> None:
    expected = whole(tree, tmp_path / "cache")
    prepared = prepare(tree, tmp_path / "cache").path
    (prepared / name).unlink()
    assert delivers(prepare(tree, tmp_path / "cache"), expected)


def test_a_damaged_entry_is_built_again_on_the_node_of_a_trial(tree: Path, tmp_path: Path) -> None:
    expected = whole(tree, tmp_path / "cache")
    path = prepare(tree, tmp_path / "cache").path
    study = store.Prepared(path=path, config=TREE, data_root=tree, cache_dir=tmp_path / "cache")
    (path / "mask.npy").write_bytes(b"")
    assert delivers(study.open(), expected)


def test_an_entry_without_checksums_of_an_earlier_version_opens(tree: Path, tmp_path: Path) -> None:
    expected = whole(tree, tmp_path / "cache")
    path = prepare(tree, tmp_path / "cache").path
    text = '{"format":3}'
    old = path.rename(path.with_name(hashlib.sha256(text.encode()).hexdigest()[:16]))
    (old / "checksums.json").unlink()
    (old / "key.json").write_text(text)
    assert delivers(store.open_entry(old), expected)
    (old / "splits.npz").write_bytes(b"PK")
    assert store.reopen(old) is None


def test_only_an_entry_is_ever_set_aside(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "key.json").touch()
    with pytest.raises(CatuvacError, match="no prepared features"):
        store.open_entry(mine)
    assert mine.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["cache", "entry", "lock"])
def test_what_another_user_made_is_refused(tree: Path, tmp_path: Path, what: str) -> None:
    path = prepare(tree, tmp_path / "cache").path
    given_away = {"cache": path.parent, "entry": path, "lock": path.with_suffix(".lock")}[what]
    os.chown(given_away, 65534, 65534)
    if what != "entry":
        shutil.rmtree(path)
    with pytest.raises(CatuvacError, match=r"another user|belongs to user 65534|not a file of yours"):
        prepare(tree, tmp_path / "cache")


def test_the_cache_is_its_owners_alone(tree: Path, tmp_path: Path) -> None:
    path = prepare(tree, tmp_path / "cache").path
    assert [folder.stat().st_mode & 0o777 for folder in (path, path.parent)] == [0o700, 0o700]
    shutil.rmtree(path)
    path.parent.chmod(0o777)
    with pytest.raises(CatuvacError, match="run `chmod go-w"):
        prepare(tree, tmp_path / "cache")


def test_a_link_in_place_of_the_lock_is_not_followed(tree: Path, tmp_path: Path) -> None:
    path = prepare(tree, tmp_path / "cache").path
    shutil.rmtree(path)
    victim, lock = tmp_path / "victim", path.with_suffix(".lock")
    victim.write_text("my key")
    lock.unlink()
    lock.symlink_to(victim)
    with pytest.raises(CatuvacError, match="is a link"):
        prepare(tree, tmp_path / "cache")
    assert victim.read_text() == "my key"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the signal of a map that is cut short")
def test_a_map_that_is_cut_short_is_one_line(tree: Path, tmp_path: Path) -> None:
    path = prepare(tree, tmp_path / "cache").path
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom catuvac.data.store import open_entry\n"
        "entry = open_entry(Path(sys.argv[1]))\nos.truncate(entry.path / 'x.npy', 128)\nprint(entry.x.sum())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(store.__file__).parents[2])}
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: a file in {path} was truncated or can no longer be read: run this again to rebuild it"
    ]
    assert len(prepare(tree, tmp_path / "cache").x) == 12


def test_names_in_any_encoding_are_read_and_stored_as_unicode(tree: Path, tmp_path: Path) -> None:
    expected = np.array(prepare(tree, tmp_path / "one").x)
    os.rename(os.fsencode(tree / "a"), os.path.join(os.fsencode(tree), b"\xff\x1b[31m"))
    prepared = prepare(tree, tmp_path / "two", TREE.with_settings({"split": "random"}))
    assert len(prepared.x) == 12
    assert set(prepared.clips["label"]) == {"b", "\\udcff\\x1b[31m"}
    assert str(tree.resolve() / "\\udcff\x1b[31m" / "0.wav") in set(prepared.clips["path"])
    assert {x.tobytes() for x in np.array(prepared.x)} == {x.tobytes() for x in expected}


def test_recordings_can_be_opened_by_their_stored_names(tree: Path, tmp_path: Path) -> None:
    (tree / "a" / "0.wav").rename(tree / "a" / "Rec 10\u202fPM\xa0\u3000.wav")
    (tree / "a" / "zero\n.wav").touch()
    prepared = prepare(tree, tmp_path / "cache")
    assert len(prepared.clips) == 12
    assert all(map(os.path.isfile, prepared.clips["path"]))
    assert prepared.skipped["path"].tolist() == [str(tree.resolve() / "a" / "zero\n.wav")]


@pytest.mark.parametrize("peak", [1e24, 1e30])
@pytest.mark.parametrize("features", [{}, {"time_fit": "stretch"}, {"clip_norm": "mean_var"}])
def test_a_file_that_is_too_loud_or_too_short_is_skipped(
    tree: Path, tmp_path: Path, features: dict[str, Any], peak: float
) -> None:
    soundfile.write(tree / "a" / "loud.wav", np.full(8000, peak), 8000, subtype="FLOAT")
    soundfile.write(tree / "a" / "short.wav", np.full(1, 0.5), 48000)
    prepared = prepare(tree, tmp_path / "cache", TREE.with_settings(features))
    assert [Path(path).name for path in prepared.skipped["path"]] == ["loud.wav", "short.wav"]
    assert "too loud for float32" in prepared.skipped["reason"][0]
    assert prepared.skipped["reason"][1] == "too short: no sample at 8000 Hz"
    assert np.isfinite(prepared.x).all()


def test_fsdd_files(shared_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "recordings"
    root.mkdir()
    for digit in (0, 1):
        for speaker in ("jackson", "theo"):
            for number in (0, 5, 6):
                shutil.copy(shared_data / "fsdd" / "recordings" / f"{digit}_{speaker}_{number}.wav", root)
    config = PRESETS["fsdd"].with_settings({"n_clusters": 2})
    prepared = prepare(tmp_path, tmp_path / "cache", config)
    assert prepared.x.shape == (12, 32, 64)
    assert prepared.mask.all()
    assert prepared.note == "12 of 3000 clips (2 of 6 speakers)"
    assert sorted(Path(path).stem[-1] for path in prepared.clips["path"][prepared.splits["test"]]) == ["0"] * 4
    assert prepared.nuisances(np.array([0, 3, 6, 9]))["speaker"].tolist() == [0, 1, 0, 1]


def test_urbansound8k_files(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "UrbanSound8K"
    rows = pd.read_csv(source / "metadata" / "UrbanSound8K.csv")
    rows = rows[rows["fold"] == 1].drop_duplicates("fsID").head(12)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "audio" / "fold1").mkdir(parents=True)
    rows.to_csv(tmp_path / "metadata" / "UrbanSound8K.csv", index=False)
    for name in rows["slice_file_name"]:
        shutil.copy(source / "audio" / "fold1" / name, tmp_path / "audio" / "fold1")
    config = PRESETS["urbansound8k_k10"].with_settings({"n_clusters": 3})
    prepared = prepare(tmp_path, tmp_path / "cache", config)
    assert prepared.x.shape == (12, 144, 128)
    assert prepared.note == "12 of 8732 clips (fold 1 of 10)"
    seconds = prepared.clips["duration"].to_numpy()
    last = np.array([np.flatnonzero(mask)[-1] for mask in prepared.mask])
    assert (last * 480 < seconds * 16000).all()  # no frame beyond the slice's own length is active
    groups = [set(prepared.clips["fs_id"][rows]) for rows in prepared.splits.values()]
    assert not groups[0] & groups[2]
    assert "fold" not in prepared.nuisances(np.arange(12))  # one value only
