"""Clusters of sound as it arrives: the offline ones, from any pipe, and one line where the pipe is at fault."""

from __future__ import annotations

import csv
import io
import math
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from catuvac import assign, inference, stream
from catuvac.cli import main
from catuvac.errors import CatuvacError
from catuvac.inference import FittedModel
from catuvac.stream import Sound, Stream

RATE = 16000


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> FittedModel:
    return inference.load(tiny_run)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five and a half seconds, a tone or noise in each."""
    rng, times = np.random.default_rng(0), np.arange(RATE) / RATE
    parts = [np.sin(2 * math.pi * pitch * times) * 0.3 for pitch in (300, 1200, 4000)]
    parts += [rng.normal(size=RATE) * 0.1, rng.normal(size=RATE) * 0.001, rng.normal(size=RATE // 2) * 0.2]
    path = tmp_path_factory.mktemp("sound") / "long.wav"
    soundfile.write(path, np.concatenate(parts), RATE, subtype="PCM_16")
    return path


def piped(data: bytes, *, stalls: bool = False, rate: int = 0, raw: bool = False) -> Sound:
    """A pipe that holds the data, and then ends, or stalls."""
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb", closefd=not stalls) as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    return stream.open_pipe(reader, timeout=0.3, rate=rate, raw=raw)


def wav(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype=subtype, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize("hop", [0.0, 0.3])
@pytest.mark.parametrize("source", ["file", "pipe", "raw"])
def test_windows_have_the_clusters_of_assign(model: FittedModel, recording: Path, source: str, hop: float) -> None:
    samples = soundfile.read(recording, dtype="int16")[0]
    sound = {
        "file": lambda: stream.open_file(recording),
        "pipe": lambda: piped(recording.read_bytes()),
        "raw": lambda: piped(samples.tobytes(), rate=RATE, raw=True),
    }[source]()
    decisions = list(Stream(model, sound, hop=hop))
    rows = assign.assign(model, [recording], window=1.0, hop=hop, undecided_above=model.undecided_above)
    whole = [row for row in rows if row.end - row.start > 0.999]  # type: ignore[operator]
    assert [d.time for d in decisions] == pytest.approx([row.end for row in whole])
    assert [d.cluster for d in decisions] == [row.cluster for row in whole]
    assert [d.undecided for d in decisions] == [row.undecided for row in whole]
    np.testing.assert_allclose([d.probability for d in decisions], [row.probability for row in whole], atol=2e-3)


def test_another_rate_is_resampled(tmp_path: Path) -> None:
    times = np.arange(3 * 44100) / 44100
    tone = 0.5 * np.sin(2 * math.pi * 1000 * times)
    (tmp_path / "stereo.wav").write_bytes(wav(np.stack([tone, tone], axis=1), 44100))
    expected = 0.5 * np.sin(2 * math.pi * 1000 * np.arange(3 * RATE) / RATE)
    for sound in (stream.open_file(tmp_path / "stereo.wav"), piped((tmp_path / "stereo.wav").read_bytes())):
        heard = np.concatenate(list(stream.resampled(sound, RATE)))
        assert abs(len(heard) - 3 * RATE) <= 1
        np.testing.assert_allclose(heard[1000:-1000], expected[1000 : len(heard) - 1000], atol=2e-3)


class TestDecisions:
    """Logits of two clusters; the first window decides for 0."""

    def decisions(self, model: FittedModel, logits: list[float], **settings: float) -> list[stream.Decision]:
        own = Stream(model, Sound(RATE, iter([])), **settings)  # type: ignore[arg-type]
        rows = [np.array([0.0, value, -9.0], np.float32) for value in logits]
        return [own.decide(row, at=float(number)) for number, row in enumerate(rows)]

    def test_a_state_changes_by_a_margin(self, model: FittedModel) -> None:
        found = self.decisions(model, [-2.0, 0.1, 2.0, -0.1, -2.0], hysteresis=0.5)
        assert [d.cluster for d in found] == [0, 1, 1, 0, 0]
        assert [d.state for d in found] == [0, 0, 1, 1, 0]
        assert [d.changed for d in found] == [False, False, True, False, True]
        assert [d.state for d in self.decisions(model, [-2.0, 0.1, 2.0, -0.1])] == [0, 1, 1, 0]

    def test_logits_are_averaged_over_the_past_alone(self, model: FittedModel) -> None:
        found = self.decisions(model, [-3.0, 2.0, 2.0], smooth=2)
        assert [d.cluster for d in found] == [0, 0, 1]
        odds = [d.probability / (1 - d.probability) for d in found]
        assert odds[1] == pytest.approx(math.exp(0.5), rel=1e-2)
        assert odds[2] == pytest.approx(math.exp(2.0), rel=1e-2)


def test_windows_of_blocks_of_any_length() -> None:
    sound = np.arange(1000, dtype=np.float32)
    for length, hop in ((100, 30.5), (100, 100), (50, 130)):
        blocks = iter(np.split(sound, [1, 7, 300, 310, 999]))
        found = list(stream.cut(blocks, length=length, hop=hop / RATE, rate=RATE))
        starts = [round(number * hop) for number in range(math.floor((1000 - length) / hop) + 1)]
        assert [end for end, _ in found] == [start + length for start in starts]
        for (_, window), start in zip(found, starts, strict=True):
            np.testing.assert_array_equal(window, sound[start : start + length])


def test_memory_is_flat() -> None:
    def blocks(seconds: int) -> Iterator[np.ndarray]:
        for _ in range(20 * seconds):
            yield np.zeros(RATE // 20, np.float32)

    def peak(seconds: int) -> int:
        tracemalloc.start()
        for _ in stream.cut(blocks(seconds), length=RATE, hop=0.5, rate=RATE):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(600) < 1.1 * peak(10)


def test_the_summary_counts(model: FittedModel, recording: Path) -> None:
    own = Stream(model, stream.open_file(recording), hop=0.5)
    decisions = list(own)
    summary = own.summary
    assert (summary.windows, summary.changes) == (10, sum(d.changed for d in decisions))
    assert summary.seconds == pytest.approx(5.5)
    assert 0 < summary.mean_ms < 1000
    assert 0 < summary.cpu_share < 1


def test_what_is_too_loud_for_the_features_is_one_line(model: FittedModel, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", np.full(RATE, 1e30), RATE, subtype="FLOAT")
    with pytest.raises(CatuvacError, match="too loud for float32"):
        list(Stream(model, stream.open_file(tmp_path / "loud.wav")))


class TestFaultyPipes:
    def message(
        self, model: FittedModel, data: bytes, *, stalls: bool = False, rate: int = 0, raw: bool = False
    ) -> str:
        with pytest.raises(CatuvacError) as caught:
            list(Stream(model, piped(data, stalls=stalls, rate=rate, raw=raw)))
        return str(caught.value)

    def test_a_stall(self, model: FittedModel, recording: Path) -> None:
        assert "stalled" in self.message(model, recording.read_bytes()[:50_000], stalls=True)
        assert "stalled" in self.message(model, b"", stalls=True)

    def test_an_early_end(self, model: FittedModel, recording: Path) -> None:
        whole = recording.read_bytes()
        assert "2.00 s of the 5.50 s" in self.message(model, whole[: 44 + 4 * RATE])
        assert "within a sample" in self.message(model, whole[: 45 + 4 * RATE])
        assert "before a whole window" in self.message(model, whole[44 : 44 + RATE], rate=RATE, raw=True)

    def test_no_early_end_where_the_length_is_unknown(self, model: FittedModel, recording: Path) -> None:
        data = bytearray(recording.read_bytes()[: 44 + 4 * RATE])
        data[40:44] = b"\xff\xff\xff\xff"  # as ffmpeg writes to a pipe
        assert len(list(Stream(model, piped(bytes(data))))) == 2

    def test_a_placeholder_is_no_end(
        self, model: FittedModel, recording: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stream, "ENDLESS", 4 * RATE)  # in place of 2 GiB
        data = bytearray(recording.read_bytes())
        data[4:8], data[40:44] = (36 + 4 * RATE).to_bytes(4, "little"), (4 * RATE).to_bytes(4, "little")
        assert len(list(Stream(model, piped(bytes(data))))) == 5

    def test_another_rate_than_stated(self, model: FittedModel, recording: Path) -> None:
        assert "16000 Hz and --rate 8000 Hz" in self.message(model, recording.read_bytes(), rate=8000)

    @pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
    def test_samples_that_are_not_16_bits(self, model: FittedModel, subtype: str) -> None:
        assert "16-bit" in self.message(model, wav(np.zeros(RATE), RATE, subtype))

    @pytest.mark.parametrize("data", [b"", b"RIFF", b"fLaC" + bytes(2000)])
    def test_no_wav_file(self, model: FittedModel, data: bytes) -> None:
        assert "no WAV file" in self.message(model, data)


def test_the_command_reads_a_pipe(tiny_run: Path, recording: Path) -> None:
    command = [str(Path(sys.executable).with_name("catuvac")), "stream", str(tiny_run), "--hop", "0.5"]
    whole = recording.read_bytes()
    done = subprocess.run(command, input=whole[: 44 + 6 * RATE], capture_output=True, check=False, timeout=120)
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["time"] for row in rows] == ["1.000", "1.500", "2.000", "2.500", "3.000"]
    summary, error = done.stderr.decode().splitlines()
    assert summary.startswith("5 windows")
    assert error.startswith("error: the pipe ended after 3.00 s")
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--raw"], "give --rate"),
        (["x.wav", "--rate", "8000"], "describe a pipe"),
        (["x.wav", "--device", "0"], "either --device"),
        (["--smooth", "0"], "--smooth 0"),
        (["--hop", "inf"], "--hop inf"),
        (["--timeout", "inf"], "--timeout inf"),
        (["gone.wav"], "No such file"),
    ],
)
def test_flags_that_do_not_go_together(
    flags: list[str], words: str, tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", str(tiny_run), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_live_input_without_its_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(CatuvacError, match=r"install catuvac\[live\]"):
        stream.open_microphone("0", rate=RATE)
