from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from catuvac.config import PRESETS, FeatureConfig
from catuvac.data import features


def tone(frequency: float, seconds: float, rate: int = 16000) -> Tensor:
    return torch.sin(2 * torch.pi * frequency * torch.arange(round(seconds * rate)) / rate)


class Clip(NamedTuple):
    x: Tensor
    mask: Tensor


def alone(samples: Tensor, duration: float, config: FeatureConfig) -> Clip:
    x, mask = features.extract([samples], durations=[duration], config=config)
    return Clip(x[0], mask[0])


def extract(samples: Tensor, **settings: Any) -> Clip:
    config = FeatureConfig(**settings)
    clip = alone(samples, len(samples) / config.sample_rate, config)
    assert clip.x.shape == features.frames(config)
    assert clip.mask.shape == clip.x.shape[:1]
    assert clip.x.dtype == torch.float32
    assert clip.mask.dtype == torch.bool
    return clip


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("synthetic", (32, 32)),
        ("fsdd", (32, 64)),
        ("audiomnist", (64, 128)),
        ("tau2019_k10", (336, 128)),
        ("urbansound8k_k10", (144, 128)),
        ("folder", (80, 64)),
    ],
)
def test_shapes_are_padded_to_multiples_of_16(name: str, shape: tuple[int, int]) -> None:
    assert features.frames(PRESETS[name].features) == shape


def test_a_spectrogram_has_the_tone_in_its_bin() -> None:
    # 1000 Hz at 16 kHz and 256 samples is bin 16: a Hann window gives half the window at the bin, a quarter beside it.
    settings = {"kind": "spectrogram", "decibels": False, "window": 256, "hop": 128, "n_bands": 20, "low_bin": 4}
    x = extract(tone(1000, 1.0), **settings).x
    assert x.shape == (128, 32)
    torch.testing.assert_close(x[50, 11:14], torch.tensor([32.0, 64.0, 32.0]), atol=0.05, rtol=0)
    assert x[:, 20:].abs().max() == 0  # padded bands
    assert x[126:].abs().max() == 0  # padded frames: 16000 // 128 + 1 are real


def test_levels_are_decibels_floored_below_the_peak() -> None:
    settings = {"kind": "spectrogram", "window": 256, "hop": 128, "n_bands": 64, "top_db": 60.0, "activity_db": 70.0}
    loud, soft = (extract(gain * tone(1000, 1.0), **settings).x[:125, :64] for gain in (1.0, 0.1))
    assert loud.max() == pytest.approx(20 * math.log10(64), abs=0.05)
    assert loud.min() == pytest.approx(float(loud.max()) - 60, abs=1e-4)
    torch.testing.assert_close(loud - soft, torch.full_like(loud, 20.0), atol=0.01, rtol=0)


def test_the_mask_ends_with_the_clip_and_leaves_out_quiet_frames() -> None:
    sound = tone(1000, 0.5)
    sound[3200:4800] *= 0.001  # 60 dB down from 0.2 s to 0.3 s
    mask = extract(sound, window=320, hop=160, n_bands=16).mask  # 100 frames a second
    assert mask.shape == (112,)
    assert mask[:20].all()
    assert not mask[21:29].any()
    assert mask[31:50].all()
    assert not mask[50:].any()


def test_duration_cuts_a_padded_copy() -> None:
    config = FeatureConfig()
    whole, copy = tone(500, 0.4), torch.cat([tone(500, 0.4), tone(4000, 0.6)])
    short, cut = alone(whole, 0.4, config), alone(copy, 0.4, config)
    assert torch.equal(short.x, cut.x)
    assert torch.equal(short.mask, cut.mask)
    assert alone(copy, math.nan, config).mask.all()


def test_stretching_interpolates_the_active_span() -> None:
    # Silence, 0.25 s that rise by 24 dB, silence: stretched, it is all active and rises in equal steps.
    rise = tone(1000, 0.25) * 10 ** (torch.linspace(-24, 0, 4000) / 20)
    sound = torch.cat([torch.zeros(4000), rise, torch.zeros(4000)])
    settings = {"kind": "spectrogram", "window": 128, "hop": 64, "n_bands": 16, "stretch_frames": 40}
    clip = extract(sound, time_fit="stretch", activity_db=30.0, **settings)
    assert clip.x.shape == (48, 16)
    assert clip.mask.tolist() == [True] * 40 + [False] * 8
    assert clip.x[40:].abs().max() == 0
    level = clip.x[3:36, 8]  # the bin of 1000 Hz, without the edges
    steps = level.diff()
    assert steps.mean() == pytest.approx(24 / 39, rel=0.1)
    assert (steps - steps.mean()).abs().max() < 0.15


def test_stretching_one_active_frame_repeats_it() -> None:
    click = torch.zeros(16000)
    click[8192] = 1.0
    clip = extract(click, time_fit="stretch", stretch_frames=16, hop=1024)
    assert torch.allclose(clip.x, clip.x[:1].expand_as(clip.x))


@pytest.mark.parametrize("time_fit", ["pad", "stretch"])
def test_clip_norm_leaves_each_active_band_without_mean_and_with_unit_deviation(time_fit: str) -> None:
    noise = torch.randn(12000, generator=torch.Generator().manual_seed(0))
    plain = extract(noise, time_fit=time_fit)
    active = plain.x[plain.mask]
    mean = extract(noise, time_fit=time_fit, clip_norm="mean")
    both = extract(noise, time_fit=time_fit, clip_norm="mean_var")
    torch.testing.assert_close(mean.x[mean.mask], active - active.mean(dim=0))
    torch.testing.assert_close(
        both.x[both.mask], (active - active.mean(dim=0)) / active.std(dim=0, correction=0), atol=1e-4, rtol=1e-4
    )


def test_silence_gives_finite_features() -> None:
    for norm in ("none", "mean", "mean_var"):
        for kind in ("log_mel", "mel_cepstrum", "spectrogram"):
            clip = extract(torch.zeros(16000), clip_norm=norm, kind=kind)
            assert torch.isfinite(clip.x).all()
            assert clip.mask.all()


def test_the_cepstrum_of_white_noise_is_flat_but_for_its_first_coefficient() -> None:
    noise = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    loud, soft = (extract(gain * noise, kind="mel_cepstrum", n_bands=13).x[:, :13] for gain in (1.0, 0.1))
    difference = (loud - soft).mean(dim=0)
    assert difference[0] == pytest.approx(20 * math.sqrt(26), rel=1e-3)  # 20 dB in each of 26 bands, orthonormal DCT
    assert difference[1:].abs().max() < 0.01


def test_no_mel_filter_is_empty() -> None:
    # 256 samples at 8 kHz hold 129 bins: 128 mel filters would warn (an error here) and six bands would be silent.
    noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    x = extract(noise, sample_rate=8000, window=256, hop=80, n_bands=128).x[:101]
    assert (x.std(dim=0) > 0.5).all()


def test_mel_filters_are_torchaudios() -> None:
    for mels, rate, n_fft in ((128, 16000, 960), (64, 8000, 256), (26, 16000, 1024)):
        theirs = melscale_fbanks(n_fft // 2 + 1, 0.0, rate / 2, mels, rate)
        torch.testing.assert_close(features.mel_filters(mels, rate, n_fft), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("clip_norm", ["none", "mean", "mean_var"])
@pytest.mark.parametrize("time_fit", ["pad", "stretch"])
@pytest.mark.parametrize("kind", ["log_mel", "mel_cepstrum", "spectrogram"])
def test_a_batch_holds_what_each_clip_has_alone(kind: str, time_fit: str, clip_norm: str) -> None:
    settings: dict[str, Any] = {"kind": kind, "time_fit": time_fit, "clip_norm": clip_norm}
    config = FeatureConfig(clip_seconds=0.5, n_bands=20, **settings)
    rng = torch.Generator().manual_seed(0)
    clips = [torch.randn(count, generator=rng) * torch.linspace(0, 1, count) for count in (9000, 1, 3000, 8000, 512)]
    durations = [9000 / 16000, math.nan, 0.1, math.nan, 1.0]
    x, mask = features.extract(clips, durations=durations, config=config)
    for row, (samples, duration) in enumerate(zip(clips, durations, strict=True)):
        single = alone(samples, duration, config)
        assert torch.equal(mask[row], single.mask)
        torch.testing.assert_close(x[row], single.x, atol=1e-5, rtol=1e-5)


def test_normaliser_uses_active_frames_only() -> None:
    x = np.zeros((2, 16, 16), dtype=np.float32)
    x[0, :2, :4] = [[0, 10, 20, 30], [2, 14, 20, 30]]
    x[0, 2] = 1000  # inactive: must not count
    x[1] = -1000  # another split: must not count
    mask = np.zeros((2, 16), dtype=bool)
    mask[0, :2] = True

    plain = features.Normaliser.fit(x, mask, FeatureConfig(n_bands=4))
    assert (plain.low, plain.high) == (0, 30)
    out = plain.apply(x[:1], mask[:1])
    np.testing.assert_allclose(out[0, :2, :4], np.array([[0, 10, 20, 30], [2, 14, 20, 30]]) / 30, rtol=1e-6)
    assert out[0, 2:].max() == 0
    assert out[0, :, 4:].max() == 0

    scaled = features.Normaliser.fit(x, mask, FeatureConfig(n_bands=4, corpus_norm="mean_var"))
    np.testing.assert_allclose(scaled.mean, [1, 12, 20, 30])
    np.testing.assert_allclose(scaled.std, [1, 2, 1, 1])  # bands that never change are left alone
    np.testing.assert_allclose(scaled.apply(x[:1], mask[:1])[0, :2, :4], [[0, 0, 0.5, 0.5], [1, 1, 0.5, 0.5]])


def test_normaliser_clips_what_training_did_not_see() -> None:
    mask = np.ones((1, 16), dtype=bool)
    x = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 16, 16)
    fitted = features.Normaliser.fit(x, mask, FeatureConfig(n_bands=16))
    out = fitted.apply(np.full((1, 16, 16), 7, dtype=np.float32), mask)
    assert out.dtype == np.float32
    assert (out == 1).all()


@pytest.mark.parametrize("clip_norm", ["none", "mean_var"])
@pytest.mark.parametrize("time_fit", ["pad", "stretch"])
def test_a_clip_that_is_too_loud_has_a_reason_and_changes_no_other(time_fit: str, clip_norm: str) -> None:
    config = FeatureConfig(time_fit=time_fit, clip_norm=clip_norm)  # type: ignore[arg-type]
    clips = [tone(1000, 0.5), 1e24 * tone(1000, 0.5)]
    x, mask, reasons = features.extract_usable(clips, durations=[math.nan] * 2, config=config)
    single = alone(clips[0], math.nan, config)
    torch.testing.assert_close(x[0], single.x)
    assert torch.equal(mask[0], single.mask)
    assert reasons == ["", "samples of up to 1e+24, where full scale is 1: too loud for float32"]
