from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from catuvac.data import audio


def test_load_averages_the_channels(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1), 8000, subtype="FLOAT")
    samples = audio.load(path, sample_rate=8000)
    assert samples.dtype == torch.float32
    torch.testing.assert_close(samples, torch.full((100,), 0.125))


def test_load_resamples_a_tone_to_the_same_tone(tmp_path: Path) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050), 22050)
    samples = audio.load(path, sample_rate=16000)
    assert samples.shape == (16000,)
    expected = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    assert (samples - expected)[200:-200].abs().max() < 0.01


def test_load_reads_no_further_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    noise = 0.1 * np.random.default_rng(0).normal(size=(22050, 2))
    noise[11025:] = np.nan
    soundfile.write(path, noise, 22050, subtype="FLOAT")
    start = audio.load(path, sample_rate=22050, seconds=0.5)
    torch.testing.assert_close(start, torch.from_numpy(noise[:11025].mean(axis=1)).float())
    assert audio.load(path, sample_rate=16000, seconds=0.5).shape == (8000,)
    soundfile.write(path, noise[:11025], 22050)
    assert audio.load(path, sample_rate=22050, seconds=audio.duration(path)).shape == (11025,)
    assert audio.load(path, sample_rate=22050, seconds=9.0).shape == (11025,)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT"])
def test_every_width_is_scaled_to_one(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "steps.wav"
    soundfile.write(path, np.array([[0.5, 0.5], [-0.25, 0.75], [-1.0, -1.0]]), 8000, subtype=subtype)
    torch.testing.assert_close(audio.load(path, sample_rate=8000), torch.tensor([0.5, 0.25, -1.0]), atol=0.01, rtol=0)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=16000), 16000)
    assert audio.load(path, sample_rate=16000).shape == (16000,)
    assert audio.duration(path) == pytest.approx(1.0)


def test_unusable_files_say_why(bad_files: dict[str, Path]) -> None:
    reasons = {}
    for name, path in bad_files.items():
        with pytest.raises(audio.AudioError) as caught:
            audio.load(path, sample_rate=8000)
        reasons[name] = str(caught.value)
    assert reasons == {
        "empty": "empty file (0 bytes)",
        "junk": "unreadable: Format not recognised.",
        "nan": "contains NaN or infinite samples",
        "zero": "zero-length: no samples",
    }
    assert np.isnan(audio.duration(bad_files["junk"]))


def test_an_absent_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(audio.AudioError, match="unreadable: No such file"):
        audio.load(tmp_path / "gone.wav", sample_rate=8000)


def test_blocks_are_the_whole_recording(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, size=(2500, 2))
    soundfile.write(tmp_path / "x.wav", samples, 1000, subtype="PCM_16")
    rate, blocks = audio.blocks(tmp_path / "x.wav", seconds=0.7)
    parts = list(blocks)
    assert (rate, [len(part) for part in parts]) == (1000, [700, 700, 700, 400])
    assert torch.equal(torch.cat(parts), audio.load(tmp_path / "x.wav", sample_rate=1000))


def test_blocks_of_an_unusable_file_say_why(bad_files: dict[str, Path], tmp_path: Path) -> None:
    for path in (*bad_files.values(), tmp_path / "gone.wav"):
        with pytest.raises(audio.AudioError):
            list(audio.blocks(path, seconds=0.1)[1])


def test_a_window_that_is_not_finite_is_followed_by_others(tmp_path: Path) -> None:
    samples = np.full(4000, 0.5)
    samples[1500] = np.inf
    soundfile.write(tmp_path / "x.wav", samples, 1000, subtype="FLOAT")
    windows = list(audio.windows(tmp_path / "x.wav", sample_rate=1000, seconds=1.0, hop=1.0))
    assert [(start, end) for start, end, _ in windows] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
    assert [part if isinstance(part, str) else len(part) for *_, part in windows] == [
        1000,
        "contains NaN or infinite samples",
        1000,
        1000,
    ]


def test_what_leaves_no_sample_is_too_short(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.full(1, 0.5), 48000)
    with pytest.raises(audio.AudioError, match="too short: no sample at 8000 Hz"):
        audio.load(tmp_path / "x.wav", sample_rate=8000)
    with pytest.raises(audio.AudioError, match="too short: no sample at 8000 Hz"):
        list(audio.windows(tmp_path / "x.wav", sample_rate=8000, seconds=1.0, hop=1.0))


def test_samples_without_a_header_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(bytes(1000))
    with pytest.raises(audio.AudioError, match="does not state its rate"):
        audio.load(tmp_path / "x.raw", sample_rate=8000)
    assert np.isnan(audio.duration(tmp_path / "x.raw"))
