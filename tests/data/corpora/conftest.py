"""Small trees of 0.1 s clips in the corpora's own layouts and names."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile

SPEAKERS: dict[str, dict[str, str | int]] = {  # entries of the official file, slips included
    "01": {"accent": "german", "age": 30, "origin": "Europe, Germany, Wuerzburg", "recordingroom": "Kino"},
    "02": {"accent": "German", "age": "25", "origin": "Europe, Germany, Hamburg", "recordingroom": "VR-Room"},
    "45": {"accent": "German", "age": "1234", "origin": "Europe, Germany, Stuttgart", "recordingroom": "vr-room"},
    "52": {"accent": "French", "age": "34", "origin": "Europe, France, Montpellier", "recordingroom": "vr-romm"},
}


COMMANDERS = ("0a7c2a8d", "105a0eea", "4c6944d6", "5f9cd2eb", "72242187", "94de6a6a", "b737ee80", "c1d39ce8")


def _write(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * rng.normal(size=800), 8000)


@pytest.fixture
def fsdd(tmp_path: Path) -> Path:
    """Two digits, six speakers, two repetitions."""
    rng = np.random.default_rng(0)
    root = tmp_path / "fsdd"
    for digit, speaker, number in product(
        (0, 7), ("george", "jackson", "lucas", "nicolas", "theo", "yweweler"), (4, 5)
    ):
        _write(root / "recordings" / f"{digit}_{speaker}_{number}.wav", rng)
    return root


@pytest.fixture
def arabic_digits(tmp_path: Path) -> Path:
    """Two digits and a word that is none, six speakers, two takes; the tables keep speakers apart."""
    rng = np.random.default_rng(0)
    root = tmp_path / "arabic_digits"
    for split, speakers in (("train", (1, 3, 30)), ("val", (2, 7)), ("test", (14,))):
        files = [
            (f"{word}/{speaker:08}_NO_{take:02}.wav", word)
            for word, speaker, take in product(("zero", "nine", "forward"), speakers, (1, 2))
        ]
        for file, _ in files:
            _write(root / file, rng)
        (root / f"{split}.csv").write_text("\n".join(["file,class", *map(",".join, files)]) + "\n")
    return root


@pytest.fixture
def speech_commands(tmp_path: Path) -> Path:
    """Three words, eight speakers, two takes, noise and what else the archive holds; the lists keep speakers apart."""
    rng = np.random.default_rng(0)
    root = tmp_path / "speech_commands_v0.02"
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for word, (number, speaker), take in product(("go", "no", "yes"), enumerate(COMMANDERS), (0, 1)):
        name = f"{word}/{speaker}_nohash_{take}.wav"
        _write(root / name, rng)
        if number < 4:
            lists["validation_list.txt" if number < 2 else "testing_list.txt"].append(name)
    _write(root / "_background_noise_" / "pink_noise.wav", rng)
    (root / "_background_noise_" / "README.md").touch()
    (root / "LICENSE").touch()
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def audiomnist(tmp_path: Path) -> Path:
    """Three digits, six speakers, five repetitions; the metadata knows four of the speakers."""
    rng = np.random.default_rng(0)
    root = tmp_path / "AudioMNIST"
    for digit, speaker, number in product((0, 4, 9), ("01", "02", "17", "45", "52", "60"), (0, 1, 2, 30, 49)):
        _write(root / "data" / speaker / f"{digit}_{speaker}_{number}.wav", rng)
    (root / "data" / "36").mkdir()
    (root / "data" / "36" / "notes.txt").touch()
    meta = {
        speaker: entry | {"gender": "male", "native speaker": "no", "recordingdate": "17-06-22-11-04-28"}
        for speaker, entry in SPEAKERS.items()
    }
    (root / "data" / "audioMNIST_meta.txt").write_text(json.dumps(meta, indent=4))
    return root


@pytest.fixture
def tau2019(tmp_path: Path) -> Path:
    """Two scenes, four cities, two locations in each, two segments."""
    rng = np.random.default_rng(0)
    root = tmp_path / "TAU-urban-acoustic-scenes-2019-development"
    rows = ["filename\tscene_label\tidentifier\tsource_label"]
    cities = ("barcelona", "helsinki", "lyon", "vienna")
    for location, (scene, city, _) in enumerate(product(("airport", "street_traffic"), cities, range(2))):
        for segment in range(2):
            name = f"audio/{scene}-{city}-{location}-{2 * location + segment}-a.wav"
            rows.append(f"{name}\t{scene}\t{city}-{location}\ta")
            _write(root / name, rng)
    (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def tau2019_leaderboard(tmp_path: Path) -> Path:
    """Forty clips without labels."""
    rng = np.random.default_rng(0)
    root = tmp_path / "TAU-urban-acoustic-scenes-2019-leaderboard"
    names = [f"audio/{number}.wav" for number in range(40)]
    for name in names:
        _write(root / name, rng)
    (root / "evaluation_setup").mkdir()
    (root / "evaluation_setup" / "test.csv").write_text("\n".join(["filename", *names]) + "\n")
    return root


@pytest.fixture
def urbansound8k(tmp_path: Path) -> Path:
    """Four folds of six clips, two of each recording; a fifth fold is listed and absent."""
    rng = np.random.default_rng(0)
    root = tmp_path / "UrbanSound8K"
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold, recording, part in product((1, 2, 3, 5, 10), range(3), range(2)):
        fs_id, (number, name) = 100 * fold + recording, ((3, "dog_bark"), (8, "siren"))[recording % 2]
        file = f"{fs_id}-{number}-0-{part}.wav"
        rows.append(f"{file},{fs_id},{0.05 * part:g},{0.05 * part + 0.05:g},{1 + part},{fold},{number},{name}")
        if fold < 10:
            _write(root / "audio" / f"fold{fold}" / file, rng)
    (root / "metadata").mkdir()
    (root / "metadata" / "UrbanSound8K.csv").write_text("\n".join(rows) + "\n")
    return root
