"""TAU Urban Acoustic Scenes 2019: `meta.csv` and `audio/{scene}-{city}-{location}-{segment}-{device}.wav`.

The leaderboard and evaluation sets have `evaluation_setup/test.csv` in place of `meta.csv`, and no labels.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from catuvac.config import CorpusConfig
from catuvac.data import audio
from catuvac.data.corpora.table import ClipTable, Corpus, check_values, keep_present, read_table
from catuvac.errors import CatuvacError

DEVELOPMENT = "TAU-urban-acoustic-scenes-2019-development"
COLUMNS = ("filename", "scene_label", "identifier", "source_label")
UNLABELLED = Path("evaluation_setup") / "test.csv"
SCENES = (
    "airport",
    "bus",
    "metro",
    "metro_station",
    "park",
    "public_square",
    "shopping_mall",
    "street_pedestrian",
    "street_traffic",
    "tram",
)


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    assert data_root is not None
    tau2019 = data_root / "tau2019"
    roots = (data_root, data_root / DEVELOPMENT, tau2019, tau2019 / DEVELOPMENT)
    for root in roots:
        if (root / "meta.csv").is_file():
            return _development(config, root)
    for root in roots:
        if (root / UNLABELLED).is_file() or any((root / "audio").glob("[!.]*.wav")):
            return _unlabelled(config, root)
    raise CatuvacError(
        f"no meta.csv, {UNLABELLED} or audio/*.wav in {data_root}, its {DEVELOPMENT}/ or its tau2019/: give "
        "--data-root the folder that contains them"
    )


def _development(config: CorpusConfig, root: Path) -> ClipTable:
    rows = read_table(root / "meta.csv", COLUMNS, separator="\t")
    check_values(rows, "scene_label", SCENES, root / "meta.csv")
    kept, absent = keep_present(rows, f"{root}/" + rows["filename"], partial=config.partial)
    clips = pd.DataFrame(
        {
            "path": kept["path"],
            "label": kept["scene_label"],
            "duration": kept["path"].map(audio.duration),
            "city": kept["identifier"].str.split("-").str[0],
            "location": kept["identifier"],
            "device": kept["source_label"],
        }
    )
    where = f"{clips['location'].nunique()} locations in {clips['city'].nunique()} cities"
    return ClipTable(clips, f"{len(clips)} of {CORPUS.full} clips ({where}){absent}")


def _unlabelled(config: CorpusConfig, root: Path) -> ClipTable:
    if (root / UNLABELLED).is_file():
        rows = read_table(root / UNLABELLED, ["filename"], separator="\t")
        kept, absent = keep_present(rows, f"{root}/" + rows["filename"], partial=config.partial)
        paths = kept["path"]
    else:
        paths, absent = pd.Series([str(path) for path in sorted((root / "audio").glob("[!.]*.wav"))]), ""
    clips = pd.DataFrame({"path": paths, "duration": paths.map(audio.duration)})
    return ClipTable(clips, f"{len(clips)} clips, no labels{absent}")


CORPUS = Corpus(
    name="tau2019",
    description="TAU Urban Acoustic Scenes 2019, development: 14 400 clips of 10 s, 10 scenes, 10 cities; or its sets "
    "without labels",
    licence="Tampere University: free for non-commercial academic use",
    nuisances=("city", "location", "device"),
    group="location",
    full=14400,
    index=_index,
)
