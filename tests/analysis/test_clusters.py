"""What the clusters are: planted outputs of a model that never was, and one real model."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray

from analysis.figures import clusters as draw
from analysis.figures import style
from analysis.questions import clusters
from analysis.questions.clusters import (
    CLIP_SECONDS,
    LOW_RATE,
    MAP_CLIPS,
    agreement,
    borderlines,
    clip_columns,
    cluster_order,
    confusion,
    medoids,
    pictures,
    project,
)
from analysis.section import Clip, Group, Section, Statement, Table
from analysis.sections.clusters import playable, section
from catuvac import trained
from catuvac.config import Config
from catuvac.data.store import FeatureSet
from catuvac.evaluation.metrics import label_scores
from catuvac.training import run_dir

K, N, RATE = 4, 160, 16000
DIGITS, SPEAKERS = ("one", "three", "two"), ("ann", "bob", "cid", "dee")


@dataclass
class Planted:
    """What `section` asks of `catuvac.trained.Trained`."""

    clips: pd.DataFrame
    logits: NDArray[np.float32]
    z: NDArray[np.float32]
    x: NDArray[np.float32]
    prototypes: NDArray[np.float32]
    sounds: list[NDArray[np.float32]]
    rate: int = RATE
    name: str = "planted"
    split: str = "val"
    gone: set[int] = field(default_factory=set)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        odds = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    @property
    def clusters(self) -> NDArray[np.int64]:
        return self.logits.argmax(axis=1)

    def audio(self, clip: int) -> tuple[NDArray[np.float32], int] | None:
        return None if clip in self.gone else (self.sounds[clip], self.rate)


def planted(follow: str = "speaker", *, n: int = N, k: int = K, seconds: float = 0.01, seed: int = 0) -> Planted:
    """Clips whose cluster is the number of their label or speaker, but for one in ten; the other column is noise."""
    rng = np.random.default_rng(seed)
    label, speaker = rng.integers(0, len(DIGITS), n), rng.integers(0, len(SPEAKERS), n)
    cluster = np.where(rng.random(n) < 0.1, rng.integers(0, k, n), label if follow == "label" else speaker)
    logits = rng.normal(0, 0.3, (n, k)) + 4 * np.eye(k)[cluster]
    clips = pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(n)],
            "label": np.array(DIGITS)[label],
            "duration": seconds,
            "speaker": np.array(SPEAKERS)[speaker],
        }
    )
    return Planted(
        clips=clips,
        logits=logits.astype(np.float32),
        z=rng.normal(0, [3, 1, 0.1], (n, 3)).astype(np.float32),
        x=rng.uniform(0, 1, (n, 6, 5)).astype(np.float32),
        prototypes=rng.uniform(0, 1, (k, 6, 5)).astype(np.float32),
        sounds=list(rng.uniform(-0.9, 0.9, (n, round(seconds * RATE))).astype(np.float32)),
    )


def checked(model: Any, *, drawn: bool = False, **options: Any) -> Section:
    """The section, held to what every section must keep; `drawn` looks into its pictures too, which takes a second."""
    found = section(model, **options)
    drawings = [drawing for group in groups(found) for drawing in group.drawings]
    words = [found.title, *map(str, found.statements), *(group.caption for group in groups(found))]
    words += [word for drawing in drawings for word in (drawing.title, drawing.alt)]
    words += [cell for part in found.parts if isinstance(part, Table) for row in part.rows for cell in row]
    if drawn:
        pictures = [ElementTree.fromstring(style.svg(drawing.figure, drawing.alt)) for drawing in drawings]
        shown = [each for picture in pictures for each in picture.iter() if not each.tag.endswith("style")]
        words += [text for each in shown for text in (each.text, each.tail) if text]
    assert not re.search(r"\b(nan|None|inf)\b|<NA>", " ".join(words), re.IGNORECASE)
    names = [drawing.name for drawing in drawings] + [statement.name for statement in found.statements]
    assert len(names) == len(set(names))
    assert set(found.headline) <= {statement.name for statement in found.statements}
    return found


def groups(found: Section) -> list[Group]:
    return [part for part in found.parts if isinstance(part, Group)]


def clips(found: Section) -> list[Clip]:
    return [part for part in found.parts if isinstance(part, Clip)]


def statement(found: Section, ending: str) -> Statement:
    """The only statement whose name ends so."""
    (one,) = [statement for statement in found.statements if statement.name.endswith(f"/{ending}")]
    return one


def captions(found: Section) -> str:
    return " ".join(group.caption for group in groups(found))


# What they follow


@pytest.mark.parametrize(("follow", "other", "sign"), [("speaker", "label", -1), ("label", "speaker", 1)])
def test_clusters_are_said_to_follow_what_they_follow(follow: str, other: str, sign: int) -> None:
    model = planted(follow)
    found = checked(model)
    said = statement(found, "follows")
    assert (said.values["first"], said.values["second"]) == (follow, other)
    assert said.values["nmi_first"] > 0.6 > 0.1 > said.values["nmi_second"]
    assert sign * said.values["low"] > 0
    assert sign * said.values["high"] > 0
    assert f": the clusters follow the {follow} (NMI 0." in str(said)
    assert f"more than the {other} (NMI 0.0" in str(said)
    acc = label_scores(model.clusters, model.clips["label"])["acc"]
    assert statement(found, "matched").values["acc"] == pytest.approx(acc)


def test_two_columns_that_cannot_be_told_apart_are_said_to_be() -> None:
    model = planted("label")
    model.clips["speaker"] = model.clips["label"].to_numpy()
    assert "no more clearly than" in str(statement(checked(model), "follows"))


def test_a_column_of_many_values_wins_nothing_by_chance() -> None:
    model = planted("label")
    model.clips["speaker"] = np.random.default_rng(5).permutation(len(model.clips)) // 2
    scores = agreement(model.clusters, clip_columns(model.clips)).scores
    assert scores.loc["speaker", "nmi"] == pytest.approx(scores.loc["speaker", "chance"], abs=0.03)
    assert scores.loc["speaker", "nmi"] > 0.2
    assert statement(checked(model), "follows").values["first"] == "label"


def test_nmi_is_that_of_the_metrics_and_the_interval_holds_it() -> None:
    model = planted()
    scores = agreement(model.clusters, clip_columns(model.clips)).scores
    for column in ("label", "speaker"):
        expected = label_scores(model.clusters, model.clips[column])["nmi"]
        assert scores.loc[column, "nmi"] == pytest.approx(expected)
        assert scores.loc[column, "low"] <= expected <= scores.loc[column, "high"]


def test_unrelated_columns_are_rarely_told_apart() -> None:
    rng, apart = np.random.default_rng(0), 0
    for seed in range(40):
        table = pd.DataFrame({"label": rng.integers(0, 10, 100), "speaker": rng.integers(0, 4, 100)})
        _, low, high = agreement(rng.integers(0, 5, 100), clip_columns(table), seed=seed).difference("label", "speaker")
        apart += low > 0 or high < 0
    assert apart <= 5


def test_clusters_stand_in_the_order_of_their_labels() -> None:
    label = pd.Categorical(["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["a"] * 2)
    found = np.array([2, 2, 2, 0, 5, 5, 5, 5, 0, 0, 0, 0, 7, 7])
    counts = confusion(found, label)
    assert counts.loc[2].tolist() == [3, 0, 0]
    assert counts.loc[0].tolist() == [1, 0, 4]
    assert cluster_order(found, label) == [2, 5, 0, 7]  # 7 holds a's too, but 2 holds more
    assert cluster_order(found, None) == [0, 2, 5, 7]
    shares = clusters.Confusion("label", counts.loc[[2, 5, 0, 7]]).shares
    assert shares.sum(axis=1).tolist() == pytest.approx([1, 1, 1, 1])
    assert shares.loc[0].tolist() == pytest.approx([0.2, 0, 0.8])


def test_a_column_of_many_values_has_no_heat_map() -> None:
    model = planted()
    model.clips["source"] = [f"s{i % 40}" for i in range(N)]
    model.clips["fold"] = 1
    found = checked(model)
    names = [drawing.name for group in groups(found) for drawing in group.drawings]
    assert "clusters-planted-val-by-speaker" in names
    assert not [name for name in names if "source" in name or "fold" in name]
    assert "Not drawn: source (values: 40), fold (values: 1)." in captions(found)
    (table,) = [part for part in found.parts if isinstance(part, Table)]
    assert [row[0] for row in table.rows] == ["label", "speaker", "source", "fold"]


# How they lie


def test_pca_finds_the_planted_axes() -> None:
    model = planted()
    found = project("z", model.z, method="PCA")
    assert found.shares == pytest.approx((9 / 10.01, 1 / 10.01), abs=0.03)
    assert abs(np.corrcoef(found.points[:, 0], model.z[:, 0])[0, 1]) > 0.99


@pytest.mark.parametrize(
    ("z", "why"),
    [
        (np.ones((N, 3)), "it is the same for every clip"),
        (np.ones((N, 1)), "it has one dimension"),
    ],
)
def test_z_that_cannot_be_mapped_is_said_to_be(z: NDArray[np.float64], why: str) -> None:
    found = checked(replace(planted(), z=z))
    assert f"No PCA of z: {why}." in captions(found)
    names = [drawing.name for group in groups(found) for drawing in group.drawings]
    assert "clusters-planted-val-pca-logits-label" in names
    assert not [name for name in names if "-z-" in name]


def test_umap_is_drawn_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class UMAP:
        def __init__(self, *, n_neighbors: int, random_state: int, n_jobs: int) -> None:
            assert (n_neighbors, random_state, n_jobs) == (15, 0, 1)

        def fit_transform(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
            return points[:, :2].astype(np.float32)

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    model = planted()
    assert np.array_equal(project("z", model.z, method="UMAP").points, model.z[:, :2])
    assert project("z", model.z[:15], method="UMAP").reason == "it needs more than 15 clips"
    names = [drawing.name for group in groups(checked(model)) for drawing in group.drawings]
    assert {f"clusters-planted-val-umap-{s}-{by}" for s in ("z", "logits") for by in ("label", "cluster")} <= set(names)
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not
    assert project("z", model.z, method="UMAP").reason == "install it with pip install umap-learn"


def test_more_categories_than_markers_leave_the_smallest_grey() -> None:
    values = [f"v{i:02}" for i in range(25) for _ in range(25 - i)]
    points = np.random.default_rng(0).normal(size=(len(values), 2))
    found = clusters.Map("z", "PCA", np.arange(len(values)), points, (0.5, 0.2))
    drawing = draw.scatter(found, pd.Categorical(values), by="label", name="many")
    lines = drawing.figure.axes[0].lines
    assert [len(line.get_xdata()) for line in lines] == [sum(range(1, 6)), *range(25, 5, -1)]
    assert lines[0].get_color() == style.GREY
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 21


def test_many_clips_are_drawn_in_part() -> None:
    points = np.random.default_rng(0).normal(size=(MAP_CLIPS + 500, 2))
    found = project("z", points, method="PCA")
    assert len(found.points) == len(np.unique(found.rows)) == MAP_CLIPS


# What they look like


def test_pictures_are_means_and_prototypes_and_an_empty_cluster_has_the_latter_alone() -> None:
    model = planted("label")  # three labels: the fourth cluster holds strays alone
    model.logits[:, 3] = -9
    found = pictures(model.x, model.clusters, model.prototypes, clip_columns(model.clips)["label"])
    assert np.allclose(found[0].mean, model.x[model.clusters == 0].mean(axis=0))
    assert [picture.most for picture in found] == ["mostly one", "mostly three", "mostly two", ""]
    assert found[3].mean is None
    assert found[3].n == 0
    assert np.array_equal(found[3].prototype, model.prototypes[3])
    (group,) = [group for group in groups(checked(model)) if group.caption.startswith("For each cluster")]
    assert "An empty cluster has only a prototype" in group.caption
    assert [drawing.title for drawing in group.drawings][3] == "cluster 3 (empty)"
    assert group.drawings[0].title == f"cluster 0 (n = {found[0].n}, mostly one)"


def test_a_label_without_a_majority_is_said_with_its_share() -> None:
    label = pd.Categorical(["a", "a", "b", "c", "d"])
    (picture,) = pictures(np.zeros((5, 2, 2)), np.zeros(5, dtype=int), np.zeros((1, 2, 2)), label)
    assert picture.most == "most often a, 40%"


# What they sound like


def test_medoid_and_borderline_are_the_planted_clips() -> None:
    model = planted(k=10)
    model.logits[:] = np.random.default_rng(1).normal(0, 0.5, (N, 10))
    model.logits[:80, 3] = 9.0
    model.logits[80:, 7] = 9.0
    model.logits[10] = model.logits[:80].mean(axis=0)
    model.logits[20, 7] = 8.96
    first, _ = medoids(model.logits, model.clusters)
    assert (first.cluster, first.clip) == (3, 10)
    found = borderlines(model.probabilities, model.clusters)
    assert [example.cluster for example in found] == [3, 7]
    assert found[0].clip == 20
    assert found[0].detail == "between cluster 3 and 7 (0.51 / 0.49)"
    played = clips(checked(model))
    assert [clip.title for clip in played] == [
        f"cluster {c}, {kind}" for c in (3, 7) for kind in ("medoid", "borderline")
    ]
    label, speaker = model.clips.loc[20, ["label", "speaker"]]
    assert played[1].detail == f"between cluster 3 and 7 (0.51 / 0.49); label {label}, speaker {speaker}"
    samples, rate = soundfile.read(io.BytesIO(played[0].wav), dtype="float32")
    assert rate == RATE
    assert np.allclose(samples, model.sounds[10], atol=2 / 2**15)


def test_a_tie_is_between_the_clips_own_cluster_and_another() -> None:
    (found,) = borderlines(np.full((2, 3), 1 / 3), np.zeros(2, dtype=int))
    assert found.detail == "between cluster 0 and 1 (0.33 / 0.33)"


def test_a_wav_is_cut_and_its_peaks_are_clipped() -> None:
    samples = np.full(5 * RATE, 1.7, dtype=np.float32)
    samples[1::2] = -1.7
    data = clusters.wav(samples, RATE)
    info = soundfile.info(io.BytesIO(data))
    assert (info.frames, info.channels, info.subtype) == (CLIP_SECONDS * RATE, 1, "PCM_16")
    decoded, _ = soundfile.read(io.BytesIO(data))
    assert decoded[0::2].min() > 0.999
    assert decoded[1::2].max() < -0.999


def listened(model: Planted, audio_bytes: int = 1_000_000) -> tuple[str, list[Clip]]:
    """The caption and the clips of every cluster's medoid and borderline clip."""
    examples = [*medoids(model.logits, model.clusters), *borderlines(model.probabilities, model.clusters)]
    group, *found = playable(model, examples, {}, audio_bytes)
    assert isinstance(group, Group)
    return group.caption, [clip for clip in found if isinstance(clip, Clip)]


def test_the_cap_lowers_the_rate_first_and_then_leaves_clips_out() -> None:
    model = planted(seconds=0.5)  # 16 kB each at 16 kHz, 8 kB at 8 kHz
    caption, full = listened(model)
    assert len(full) == 2 * K
    assert "resampled" not in caption
    caption, lowered = listened(model, 70_000)
    assert {soundfile.info(io.BytesIO(clip.wav)).samplerate for clip in lowered} == {LOW_RATE}
    assert len(lowered) == 2 * K
    assert "resampled to 8000 Hz" in caption
    caption, capped = listened(model, 41_000)
    medoids_of = [f"cluster {cluster}, medoid" for cluster in range(K)]
    assert [clip.title for clip in capped] == [medoids_of[0], "cluster 0, borderline", *medoids_of[1:]]
    assert sum(len(clip.wav) for clip in capped) <= 41_000
    assert "3 more would not fit into 0.041 MB" in caption
    assert listened(model, 0)[1] == []


def test_recordings_that_are_gone_are_counted() -> None:
    model = planted()
    model.gone = {medoids(model.logits, model.clusters)[0].clip}
    caption, found = listened(model)
    assert "cluster 0, medoid" not in [clip.title for clip in found]
    assert f"{2 * K - len(found)} of the {2 * K} recordings cannot be opened" in caption
    model.gone = set(range(N))
    assert not clips(checked(model))


# Odd models


@pytest.mark.parametrize("null", [False, True])
def test_without_labels_the_nuisances_stand_alone(null: bool) -> None:
    model = planted()
    table = model.clips.assign(label=None) if null else model.clips.drop(columns="label")
    found = checked(replace(model, clips=table))
    assert "NMI of 0." in str(statement(found, "follows"))
    assert "with the speaker" in str(statement(found, "follows"))
    assert not [s for s in found.statements if s.name.endswith("/matched")]
    assert "no labels" in captions(found)
    assert not [d.name for group in groups(found) for d in group.drawings if "label" in d.name]
    assert clips(found)[0].detail.startswith("speaker ")


def test_without_any_column_the_pictures_remain() -> None:
    model = planted()
    found = checked(replace(model, clips=model.clips[["path", "duration"]]))
    assert [s.name for s in found.statements] == ["clusters/planted-val/used"]
    assert "no labels and no other columns" in captions(found)
    assert len(clips(found)) == 2 * K


def test_without_nuisances_the_label_stands_alone() -> None:
    model = planted("label")
    found = checked(replace(model, clips=model.clips.drop(columns="speaker")))
    assert "with the label" in str(statement(found, "follows"))


def test_one_used_cluster_follows_nothing() -> None:
    model = planted()
    model.logits[:, 2] = 30.0
    found = checked(model)
    assert statement(found, "used").values["used"] == 1
    assert "every NMI is 0" in str(statement(found, "follows"))
    assert "clusters-planted-val-pca-logits-cluster" in [d.name for group in groups(found) for d in group.drawings]


def test_null_values_odd_names_and_single_clips() -> None:
    model = planted(n=2)
    model.clips["label"] = ["_a$b$_{x}", None]
    model.clips["speaker"] = [1.0, 2.0]
    found = checked(model, drawn=True)
    assert clip_columns(model.clips)["label"].categories.tolist() == ["_a$b$_{x}", "unknown"]
    assert found.statements
    checked(planted(n=1))


def test_a_diverged_model_and_an_empty_split_are_said_to_be() -> None:
    model = planted()
    model.z[3, 0] = np.nan
    assert "diverged" in str(checked(model).statements[0])
    assert "no clip" in str(checked(planted(n=0)).statements[0])


def test_a_real_model(tiny_config: Config, tiny_features: FeatureSet, tmp_path: Path) -> None:
    run_dir.train(tmp_path / "run", tiny_config, tiny_features, device="cpu", threads=0)
    model = trained.open_run(tmp_path / "run", split="test")
    found = checked(model)
    used = len(np.unique(model.clusters))
    assert statement(found, "used").values == {
        "used": used,
        "k": 3,
        "n": len(model.clips),
        "largest": np.bincount(model.clusters).max() / len(model.clips),
    }
    assert len(clips(found)) == 2 * used
    medoid = medoids(model.logits, model.clusters)[0]
    sound = model.audio(medoid.clip)
    assert sound is not None
    decoded, rate = soundfile.read(io.BytesIO(clips(found)[0].wav), dtype="float32")
    assert rate == sound[1]
    assert np.allclose(decoded, sound[0], atol=2 / 2**15)
