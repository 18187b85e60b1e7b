from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from catuvac.config import CorpusConfig, SplitConfig, preset
from catuvac.data import store
from catuvac.data.corpora import COMMON, CORPORA, index
from catuvac.data.corpora.speech_commands import WORDS
from catuvac.data.splits import split
from catuvac.errors import CatuvacError

ALL = CorpusConfig(corpus="speech_commands")
TWO = CorpusConfig(corpus="speech_commands", words=("yes", "no"))


def test_words_speakers_and_the_lists_splits(speech_commands: Path) -> None:
    table = index(ALL, speech_commands.parent)
    clips = table.clips
    assert table.note == "48 of 105829 clips (3 words, 8 speakers)"
    assert clips["label"].value_counts().to_dict() == {"go": 16, "no": 16, "yes": 16}  # and no background noise
    assert clips.iloc[0].to_dict() == {
        "path": str(speech_commands.resolve() / "go" / "0a7c2a8d_nohash_0.wav"),
        "label": "go",
        "duration": pytest.approx(0.1),
        "split": "val",
        "speaker": "0a7c2a8d",
    }
    assert set(clips.columns) - set(COMMON) == set(CORPORA["speech_commands"].nuisances)
    parts = split(clips, SplitConfig(split="official"))
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 24, "val": 12, "test": 12}
    speakers = [set(clips["speaker"][rows]) for rows in parts.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 8
    pd.testing.assert_frame_equal(index(ALL, speech_commands).clips, clips)


def test_chosen_words_alone_are_there(speech_commands: Path) -> None:
    table = index(TWO, speech_commands)
    assert set(table.clips["label"]) == {"no", "yes"}
    assert table.note == "32 of 7985 clips (2 words, 8 speakers)"
    with pytest.raises(CatuvacError, match="unknown word 'yess'; did you mean 'yes'"):
        index(CorpusConfig(corpus="speech_commands", words=("yess",)), speech_commands)
    with pytest.raises(CatuvacError, match="unknown word '_background_noise_'"):
        index(CorpusConfig(corpus="speech_commands", words=("_background_noise_",)), speech_commands)
    with pytest.raises(CatuvacError, match="has no folder stop: put it there"):
        index(CorpusConfig(corpus="speech_commands", words=("yes", "stop")), speech_commands)


def test_a_listed_clip_that_is_absent(speech_commands: Path) -> None:
    (speech_commands / "yes" / "105a0eea_nohash_1.wav").unlink()
    with pytest.raises(CatuvacError, match=r"1 of 16 listed files are absent, the first .*105a0eea_nohash_1\.wav"):
        index(TWO, speech_commands)
    table = index(CorpusConfig(corpus="speech_commands", words=("yes", "no"), partial=True), speech_commands)
    assert table.note == "31 of 7985 clips (2 words, 8 speakers); 1 listed but absent"
    shutil.rmtree(speech_commands / "yes")
    assert index(ALL, speech_commands).note == "32 of 105829 clips (2 words, 8 speakers)"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("yes/4c6944d6_nohash_0.wav", r"yes/4c6944d6_nohash_0\.wav is listed twice"),  # the other list has it
        ("yes/notes.txt", r"validation_list\.txt lists yes/notes\.txt, which is not a clip's name; restore the"),
        ("yes/\udcff.wav", r"validation_list\.txt is not UTF-8"),
    ],
)
def test_a_list_with_a_mistake(line: str, message: str, speech_commands: Path) -> None:
    with (speech_commands / "validation_list.txt").open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(line + "\n")
    with pytest.raises(CatuvacError, match=message):
        index(TWO, speech_commands)


def test_the_preset_prepares_what_it_says(speech_commands: Path, tmp_path: Path) -> None:
    whole = preset("speech_commands")
    assert len(whole.corpus.words) == whole.model.n_clusters
    assert set(whole.corpus.words) < set(WORDS)
    config = whole.with_settings({"words": ["yes", "no"], "n_clusters": 2})
    prepared = store.prepare(config, data_root=speech_commands, cache_dir=tmp_path / "cache", progress=False)
    assert prepared.x.shape == (32, 32, 64)
    assert {name: len(rows) for name, rows in prepared.splits.items()} == {"train": 16, "val": 8, "test": 8}
    assert set(prepared.nuisances(prepared.splits["val"])) == {"speaker"}
