"""`catuvac export`: files that need nothing else, checked on real clips."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("onnxruntime")

from catuvac import inference
from catuvac.cli import main
from catuvac.config import Config
from catuvac.data import store
from catuvac.data.corpora import CORPORA
from catuvac.data.store import FeatureSet
from catuvac.errors import CatuvacError
from catuvac.export import graph, quantise, write
from catuvac.export.consumer import ExportedModel, session
from catuvac.stream import Stream, open_file
from catuvac.training import run_dir


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export")
    assert main(["export", str(tiny_run), "--int8", "--out", str(out)]) == 0
    return out


def test_files_hold_the_trained_model(exported: Path, tiny_run: Path, tiny_features: FeatureSet) -> None:
    model = inference.load(tiny_run)
    rows, config = tiny_features.splits["test"], model.config
    paths = tiny_features.clips["path"].iloc[rows]
    clips = [CORPORA["synthetic"].read(config.corpus, path, config.features.sample_rate) for path in paths]
    expected = model.predict(clips).probabilities
    given = write.inputs(clips, [float("nan")] * len(clips), model)
    for file, tolerance in ((write.FLOAT32, 2e-3), (write.INT8, 0.05)):  # PyTorch may compute in bfloat16 here
        (found,) = session(str(exported / file)).run([graph.PROBABILITIES], given)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_the_record_states_costs_and_checks(exported: Path) -> None:
    record = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    whole, small = record["checks"]
    assert whole["logit_difference"] <= write.TOLERANCE
    assert whole["agreement"] == 1.0
    assert small["network"]["macs"] == whole["network"]["macs"] > 0
    assert small["network"]["peak_bytes"] < whole["network"]["peak_bytes"]
    assert 3.5 * small["network"]["weight_bytes"] < whole["network"]["weight_bytes"]
    assert [check["bytes"] for check in record["checks"]] == [
        (exported / name).stat().st_size for name in (write.FLOAT32, write.INT8)
    ]
    assert record["checked_on"] == "12 clips of the validation split"
    assert record["front_end"]["macs"] > record["fft_macs"]


def test_a_consumer_needs_the_file_alone(exported: Path, tiny_config: Config) -> None:
    facts = session(str(exported / write.INT8)).get_modelmeta().custom_metadata_map
    assert (facts["sample_rate"], facts["samples"]) == ("16000", "16000")
    assert json.loads(facts["clusters"]) == [""] * tiny_config.model.n_clusters
    assert facts["config_hash"]


def test_a_stream_through_the_file_is_that_of_the_model(exported: Path, tiny_run: Path, tmp_path: Path) -> None:
    model, file = inference.load(tiny_run), ExportedModel(exported / write.FLOAT32)
    assert (file.names, file.window, file.sample_rate) == (model.names, model.window, model.sample_rate)
    assert file.undecided_above == pytest.approx(model.undecided_above, rel=1e-5)
    rng = np.random.default_rng(0)
    noise = np.concatenate([gain * rng.normal(size=8000) for gain in (0.2, 0.01, 0.1, 0.001)])
    soundfile.write(tmp_path / "x.wav", noise, 16000)
    found, expected = (list(Stream(each, open_file(tmp_path / "x.wav"), hop=0.25)) for each in (file, model))
    assert [d.cluster for d in found] == [d.cluster for d in expected]
    np.testing.assert_allclose([d.probability for d in found], [d.probability for d in expected], atol=2e-3)


def test_what_is_no_export_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    for path, words in ((tmp_path / "x.onnx", "is not a file of"), (tmp_path / "gone.onnx", "there is no file")):
        with pytest.raises(CatuvacError, match=words):
            ExportedModel(path)


def test_the_card_states_corpus_licence_and_scores(exported: Path, tiny_run: Path, tiny_features: FeatureSet) -> None:
    card = (exported / "model_card.md").read_text(encoding="utf-8")
    assert CORPORA["synthetic"].licence in card
    assert tiny_features.note in card
    report = json.loads((tiny_run / "metrics.json").read_text(encoding="utf-8"))
    assert f"| nmi | {report['val/nmi']:.4g} |" in card
    assert run_dir.config(tiny_run).to_yaml() in card
    assert all(len(line.replace("\\|", "").split("|")) in (1, 4) for line in card.splitlines() if line[:1] == "|")


def test_calibration_clips_are_the_same_every_time() -> None:
    rows = np.arange(1000, 2000)
    chosen = quantise.spread(rows, quantise.CALIBRATION)
    assert len(np.unique(chosen)) == quantise.CALIBRATION
    assert (chosen[0], chosen[-1]) == (1000, 1999)
    np.testing.assert_array_equal(quantise.spread(rows[:7], quantise.CALIBRATION), rows[:7])


def test_without_recordings_noise_is_what_is_compared(tiny_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    record = json.loads((copy / "run.json").read_text(encoding="utf-8")) | {"features": str(tmp_path / "gone")}
    (copy / "run.json").write_text(json.dumps(record), encoding="utf-8")
    model = inference.load(copy)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / write.INT8).touch()  # of an earlier export
    result = write.export(model, out=tmp_path / "out", int8=False)
    assert not (tmp_path / "out" / write.INT8).exists()
    assert (result.clips, result.checks[0].agreement) == (write.NOISE_CLIPS, 1.0)
    assert "noise" in result.checked_on
    with pytest.raises(CatuvacError, match="needs the training features"):
        write.export(model, out=tmp_path / "int8", int8=True)


def test_logits_that_differ_write_nothing(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "TOLERANCE", 0.0)
    with pytest.raises(CatuvacError, match="nothing was written"):
        write.export(inference.load(tiny_run), out=tmp_path / "out", int8=False)
    assert not (tmp_path / "out").exists()


def test_a_uvac_is_one_line(
    tiny_config: Config, cache_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config.with_settings({"method": "uvac", "epochs": 1})
    features = store.prepare(config, data_root=None, cache_dir=cache_dir, workers=1, progress=False)
    run_dir.train(tmp_path / "run", config, features, device="cpu", threads=1)
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no q(y|x) to export" in line
    assert not (tmp_path / "run" / "export").exists()


def test_clips_that_are_parts_of_recordings_are_checked_from_their_starts(tmp_path: Path, tiny_run: Path) -> None:
    """Each recording is a ramp, so that a sample says where it lies."""
    ramp = np.linspace(0.0, 0.5, 4000, dtype=np.float32)
    for number in range(12):
        soundfile.write(tmp_path / f"{number}.wav", ramp, 8000, subtype="FLOAT")
    lines = [f"{number}.wav,{start},{start + 0.25}" for number in range(12) for start in (0.0, 0.25)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,start,end", *lines]))
    model = inference.load(tiny_run)
    settings = {"corpus": "folder", "table": "clips.csv", "sample_rate": 8000, "clip_seconds": 0.25, "n_classes": 2}
    config = model.config.with_settings({**settings, "limit": 0, "split": "random"})
    corpus = store.prepare(config, data_root=tmp_path, cache_dir=tmp_path / "cache", progress=False)
    clips = list(write._validation_clips(replace(model, config=config), corpus))
    firsts = [round(float(samples[0]), 2) for chunk, _ in clips for samples in chunk]
    starts = corpus.clips["start"].iloc[corpus.splits["val"]]
    assert firsts == [0.0 if start == 0 else 0.25 for start in starts]
    assert set(firsts) == {0.0, 0.25}
