"""Google's Speech Commands, version 2: `{word}/{speaker}_nohash_{number}.wav`, two lists, 16 kHz, up to a second each.

P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", arXiv 1804.03209; the archive is
http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz. Version 1 has the same layout and 30 of the words.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from catuvac.config import CorpusConfig, unknown
from catuvac.data import audio
from catuvac.data.corpora.table import OFFICIAL, ClipTable, Corpus, keep_present
from catuvac.errors import CatuvacError

LISTS = {"validation_list.txt": "val", "testing_list.txt": "test"}  # no speaker is in two of the splits
# The last is torchaudio's.
FOLDERS = ("speech_commands", "speech_commands_v0.02", "SpeechCommands/speech_commands_v0.02")
WORDS = {  # with their numbers of clips; the folder _background_noise_ is not a word
    **{"backward": 1664, "bed": 2014, "bird": 2064, "cat": 2031, "dog": 2128, "down": 3917, "eight": 3787},
    **{"five": 4052, "follow": 1579, "forward": 1557, "four": 3728, "go": 3880, "happy": 2054, "house": 2113},
    **{"learn": 1575, "left": 3801, "marvin": 2100, "nine": 3934, "no": 3941, "off": 3745, "on": 3845},
    **{"one": 3890, "right": 3778, "seven": 3998, "sheila": 2022, "six": 3860, "stop": 3872, "three": 3727},
    **{"tree": 1759, "two": 3880, "up": 3723, "visual": 1592, "wow": 2123, "yes": 4044, "zero": 4052},
}

_NAME = re.compile(r"(?P<word>[a-z]+)/(?P<speaker>[0-9a-f]+)_nohash_\d+\.wav")  # below the root


def _index(config: CorpusConfig, data_root: Path | None) -> ClipTable:
    assert data_root is not None
    for word in config.words:
        if word not in WORDS:
            raise CatuvacError(unknown("word", word, WORDS))
    for root in (data_root, *(data_root / folder for folder in FOLDERS)):
        if all((root / name).is_file() for name in LISTS):
            break
    else:
        raise CatuvacError(
            f"no {' and '.join(LISTS)} in {data_root} or its speech_commands/: give --data-root the folder that "
            "contains the corpus"
        )
    absent = [word for word in config.words if not (root / word).is_dir()]
    if absent:
        raise CatuvacError(f"{root} has no folder {', '.join(absent)}: put it there, or choose other --words")
    words = [word for word in sorted(config.words or WORDS) if (root / word).is_dir()]
    names = sorted(path.relative_to(root).as_posix() for word in words for path in (root / word).glob("*.wav"))
    matches = [match for name in names if (match := _NAME.fullmatch(name))]
    if not matches:
        raise CatuvacError(f"no {{word}}/{{speaker}}_nohash_{{number}}.wav in {root}: restore the official folders")
    splits, left_out = _splits(root, words, partial=config.partial)
    clips = pd.DataFrame(
        {
            "path": [str(root / match.string) for match in matches],
            "label": [match["word"] for match in matches],
            "duration": [audio.duration(root / match.string) for match in matches],
            "split": [splits.get(match.string, "train") for match in matches],
            "speaker": [match["speaker"] for match in matches],
        }
    )
    full = sum(WORDS[word] for word in config.words or WORDS)
    counts = f"{len(words)} words, {clips['speaker'].nunique()} speakers"
    return ClipTable(clips, f"{len(clips)} of {full} clips ({counts}){left_out}")


def _splits(root: Path, words: list[str], *, partial: bool) -> tuple[dict[str, str], str]:
    """Returns the split of each listed file of the words, and a text for the note about absent ones."""
    parts = []
    for name, split in LISTS.items():
        try:
            lines = (root / name).read_text(encoding="utf-8").split()
        except UnicodeDecodeError as error:
            raise CatuvacError(f"{root / name} is not UTF-8: {error}; {OFFICIAL}") from error
        odd = [line for line in lines if not _NAME.fullmatch(line)]
        if odd:
            raise CatuvacError(f"{root / name} lists {odd[0]}, which is not a clip's name; {OFFICIAL}")
        parts.append(pd.DataFrame({"file": lines, "split": split}))
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[rows["file"].str.split("/").str[0].isin(words)].reset_index(drop=True)
    if rows.empty:
        raise CatuvacError(f"{' and '.join(LISTS)} in {root} list no clip of {', '.join(words)}; {OFFICIAL}")
    kept, absent = keep_present(rows, f"{root}/" + rows["file"], partial=partial)
    return dict(zip(kept["file"], kept["split"], strict=True)), absent


CORPUS = Corpus(
    name="speech_commands",
    description="Google's Speech Commands, version 2: 105 829 spoken English words (35), 2 618 speakers, 16 kHz; "
    "--words chooses some",
    licence="CC BY 4.0",
    nuisances=("speaker",),
    group="speaker",
    full=sum(WORDS.values()),
    index=_index,
)
