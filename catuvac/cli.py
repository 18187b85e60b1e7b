"""The `catuvac` command, with a dataclass for each of its sub-commands.

Heavy imports stay inside the commands: `catuvac --help` must answer in under a second, and nothing here imports Ray.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from catuvac.config import PRESETS, Config, CorpusConfig, load_yaml, preset
from catuvac.errors import CatuvacError, guarded, printable
from catuvac.io import expand_home

if TYPE_CHECKING:
    from catuvac.data.store import FeatureSet

Settings = Annotated[Config, tyro.conf.arg(name="")]


@dataclass(kw_only=True)
class Source:
    """Where the settings, the recordings and the cache are."""

    preset: str = "synthetic"
    """settings to start from, of which every flag below overrides one: synthetic, fsdd, arabic_digits,
    speech_commands, audiomnist, tau2019_k10, tau2019_k5, urbansound8k_k10, urbansound8k_k5 or folder"""
    config: Path | None = None
    """YAML file to start from instead, such as a study's best.yaml"""
    data_root: Path | None = None
    """folder with the recordings (not needed for the synthetic corpus)"""
    cache_dir: Path | None = None
    """feature cache; default: $CATUVAC_CACHE, else ~/.cache/catuvac"""
    workers: int = 0
    """threads that extract features; 0 takes all cores"""
    strict: bool = False
    """stop at the first unusable file instead of skipping it"""
    settings: Settings = field(default_factory=Config)

    def prepare(self) -> FeatureSet:
        from catuvac.data import store

        features = store.prepare(
            self.settings,
            data_root=self.data_root,
            cache_dir=self.cache_dir,
            workers=self.workers,
            strict=self.strict,
        )
        for path, reason in features.skipped.itertuples(index=False):
            print(printable(f"skipped {path}: {reason}"), file=sys.stderr)
        return features


@dataclass(kw_only=True)
class Datasets:
    """List the corpora that catuvac reads."""

    def run(self) -> None:
        from rich.console import Console
        from rich.table import Column, Table

        from catuvac.data.corpora import CORPORA

        headings = ("corpus", "what", "licence", "nuisance columns", "recordings")
        table = Table(*(Column(heading, overflow="fold") for heading in headings))
        for corpus in CORPORA.values():
            where = "--data-root" if corpus.needs_root else "generated"
            table.add_row(corpus.name, corpus.description, corpus.licence, ", ".join(corpus.nuisances) or "–", where)
        Console().print(table)


@dataclass(kw_only=True)
class Download:
    """Fetch a corpus, pinned to one version and checked; run it again after an interruption to go on."""

    corpus: tyro.conf.Positional[str]
    """audiomnist, fsdd, urbansound8k or tau2019"""
    data_root: Path
    """folder to put it into; --data-root of the other commands"""

    def run(self) -> None:
        from catuvac.data import corpora, download

        folder = download.fetch(self.corpus, self.data_root)
        print(f"{folder}: {corpora.index(CorpusConfig(corpus=self.corpus), self.data_root).note}")


@dataclass(kw_only=True)
class Prepare(Source):
    """Extract and cache the features of a corpus; later commands and trials map them from the cache."""

    def run(self) -> None:
        features = self.prepare()
        n, frames, bands = features.x.shape
        splits = ", ".join(f"{len(rows)} {name}" for name, rows in features.splits.items())
        print(f"{features.note}: {n} usable clips, {len(features.skipped)} skipped; {splits}")
        print(f"features [N, T, F] = [{n}, {frames}, {bands}] in {features.path}")


@dataclass(kw_only=True)
class Train(Source):
    """Train one model; writes config, history, metrics and weights to a folder, and can be resumed."""

    out: Path
    """folder of the run; must not hold one already, unless --resume"""
    resume: bool = False
    """continue the run in --out from its last checkpoint"""
    device: str = "auto"
    """torch device; auto takes CUDA where present, else the CPU"""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's choice. Results are equal bit for bit only at equal threads"""

    def run(self) -> None:
        from catuvac.training import run_dir

        run_dir.check(self.out, self.settings, resume=self.resume)
        features = self.prepare()
        run_dir.train(self.out, self.settings, features, device=self.device, threads=self.threads, resume=self.resume)


@dataclass(kw_only=True)
class Evaluate:
    """Score a trained run on one split, k-means on the same features beside it."""

    run_dir: tyro.conf.Positional[Path]
    """folder that `catuvac train` wrote"""
    split: Literal["train", "val", "test"] = "val"
    """clips to score; read the test split once, at the end"""
    json: bool = False
    """print JSON instead of a table"""
    data_root: Path | None = None
    """folder with the recordings, where the feature cache no longer holds them"""
    cache_dir: Path | None = None
    """feature cache; default: $CATUVAC_CACHE, else ~/.cache/catuvac"""

    def run(self) -> None:
        from catuvac.training import run_dir

        config = run_dir.config(self.run_dir)
        features = Source(settings=config, data_root=self.data_root, cache_dir=self.cache_dir)
        scores = run_dir.evaluate(self.run_dir, run_dir.features(self.run_dir) or features.prepare(), split=self.split)
        if self.json:
            print(json.dumps(scores, indent=2))
        else:
            _print_scores(scores, title=f"{self.run_dir}, {self.split} split")


@dataclass(kw_only=True)
class Assign:
    """Give every recording a cluster, with its probability; or every window of long recordings."""

    model: tyro.conf.Positional[str]
    """folder of `catuvac train`, of a study (its best trial), or one of its trials, results/NAME:7"""
    paths: tyro.conf.Positional[tuple[str, ...]]
    """recordings, folders of them, or - for paths on standard input, a line each or ended by NUL"""
    format: Literal["csv", "jsonl", "parquet", "audacity", "raven"] = "csv"
    """audacity: label tracks; raven: selection tables; both with one file per recording"""
    out: Path | None = None
    """file, or folder where audacity and raven have several recordings; default: standard output (csv, jsonl)"""
    window: float = 0.0
    """s; cuts recordings into windows; 0 takes the start of each recording, as the training did"""
    hop: float = 0.0
    """s between the starts of two windows; 0 puts them end to end"""
    undecided_above: float | None = None
    """entropy of q(y|x) in nats above which a clip counts as undecided; default: half of log K"""
    copy_to: Path | None = None
    """empty folder: copies every recording into a sub-folder of its cluster, with a page to listen to them"""
    link_to: Path | None = None
    """the same with symbolic links"""

    def run(self) -> None:
        for name, value in (("window", self.window), ("hop", self.hop)):
            if not value >= 0:
                raise CatuvacError(f"--{name} must not be negative, got {value} s")
        if self.hop and not self.window:
            raise CatuvacError("--hop needs a --window")
        folders = [folder for folder in (self.copy_to, self.link_to) if folder is not None]
        if len(folders) > 1 or (folders and self.window):
            raise CatuvacError("give one of --copy-to and --link-to, and no --window: whole recordings are sorted")
        from catuvac import assign, inference

        model = inference.load(self.model)
        paths = assign.expand(self.paths, stdin=sys.stdin)
        above = model.undecided_above if self.undecided_above is None else self.undecided_above
        rows = assign.assign(model, assign.progress(paths), window=self.window, hop=self.hop, undecided_above=above)
        written = assign.write(rows, out=self.out, format=self.format)
        if folders:
            print(f"page       {assign.sort_into(written, folders[0], link=self.link_to is not None)}", file=sys.stderr)
        unread = sum(bool(row.reason) for row in written)
        if unread:
            raise CatuvacError(f"{unread} of {len(paths)} recordings could not be read; their rows say why")


@dataclass(kw_only=True)
class Name:
    """Name clusters of a model, for every later output: catuvac name MODEL 3=rain 5=wind."""

    model: tyro.conf.Positional[str]
    """as for catuvac assign"""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """CLUSTER=NAME; an empty NAME takes one away; none prints those that there are"""

    def run(self) -> None:
        from catuvac import inference

        given = {}
        for text in self.names:
            cluster, equals, name = text.partition("=")
            if not equals or not cluster.isdigit():
                raise CatuvacError(f"{text!r} is no CLUSTER=NAME, such as 3=rain")
            given[int(cluster)] = name.strip()
        model = inference.load(self.model)
        if given:
            model = inference.rename(model, given)
        for number, name in enumerate(model.names):
            print(f"{number:3} {name or '–'}")


@dataclass(kw_only=True)
class Export:
    """Write a trained Cat. UVAC and its front end as ONNX, with what it costs on a device and a model card.

    Every file is checked in onnxruntime against PyTorch, on clips of the validation split."""

    model: tyro.conf.Positional[str]
    """as for catuvac assign"""
    to: Literal["onnx"] = "onnx"
    """format of the file"""
    int8: bool = False
    """write model-int8.onnx too: int8 convolutions, calibrated on training clips"""
    out: Path | None = None
    """folder to write to; default: export/ in the model's folder"""

    def run(self) -> None:
        from catuvac import inference

        write = _export_module("write")
        model = inference.load(self.model)
        assert model.folder is not None  # what was loaded lies in one
        out = self.out or model.folder / "export"
        result = write.export(model, out=out, int8=self.int8)
        for what, value in write.budget_rows(model, result):
            print(f"{what:50} {value}")
        print(f"checked on {result.checked_on}; see {out}")
        if warning := write.warning(result):
            print(f"warning: {warning}", file=sys.stderr)


@dataclass(kw_only=True)
class Stream:
    """Give every window of sound its cluster as it arrives, a line each, and say at the end what that took.

    time: s to the window's end; state: the cluster that holds, which changes by --hysteresis alone."""

    model: tyro.conf.Positional[str]
    """as for catuvac assign, or a file of catuvac export"""
    source: tyro.conf.Positional[str] = "-"
    """recording, named pipe, or - for standard input; pipes hold a WAV file of 16-bit samples"""
    raw: bool = False
    """a pipe without a header: signed 16-bit little-endian samples, mono, at --rate"""
    rate: int = 0
    """Hz; of raw samples, or what the header of a pipe must state"""
    device: str = ""
    """live input in place of a source, by number or part of its name (extra `live`)"""
    hop: float = 0.0
    """s between the ends of two windows; 0 puts windows end to end"""
    smooth: int = 1
    """windows, up to the present one, whose logits are averaged"""
    hysteresis: float = 0.1
    """by how much another cluster must be more probable than the state to replace it, in [0, 1)"""
    timeout: float = 10.0
    """s without a byte after which a pipe counts as stalled"""
    threads: int = 1
    """CPU threads that compute"""

    def run(self) -> None:
        for name, value, good in (
            ("hop", self.hop, self.hop >= 0),
            ("rate", self.rate, self.rate >= 0),
            ("smooth", self.smooth, self.smooth >= 1),
            ("hysteresis", self.hysteresis, 0 <= self.hysteresis < 1),
            ("timeout", self.timeout, self.timeout > 0),
            ("threads", self.threads, self.threads >= 1),
        ):
            if not good:
                raise CatuvacError(f"--{name} {value} is out of range; see catuvac stream --help")
        pipe = self.source == "-" or Path(self.source).is_fifo()
        if self.raw and not self.rate:
            raise CatuvacError("raw samples need their rate: give --rate HZ")
        if (self.raw or self.rate) and (self.device or not pipe):
            raise CatuvacError("--raw and --rate describe a pipe, and a file states its rate: leave them out")
        if self.device and self.source != "-":
            raise CatuvacError(f"give either --device or {self.source}")
        import csv
        import os
        from dataclasses import asdict, fields

        import torch

        from catuvac import inference, stream

        torch.set_num_threads(self.threads)
        model: stream.Classifier
        if self.model.endswith(".onnx"):
            model = _export_module("consumer").ExportedModel(Path(self.model), threads=self.threads)
        else:
            model = inference.load(self.model)
        if self.device:
            sound = stream.open_microphone(self.device, rate=model.sample_rate)
        elif pipe:
            handle = sys.stdin.fileno() if self.source == "-" else os.open(self.source, os.O_RDONLY)
            sound = stream.open_pipe(handle, timeout=self.timeout, rate=self.rate, raw=self.raw)
        else:
            sound = stream.open_file(Path(self.source))
        decisions = stream.Stream(model, sound, hop=self.hop, smooth=self.smooth, hysteresis=self.hysteresis)
        writer = csv.DictWriter(sys.stdout, [field.name for field in fields(stream.Decision)])
        writer.writeheader()
        try:
            for decision in decisions:
                row = asdict(decision) | {"time": f"{decision.time:.3f}", "probability": f"{decision.probability:.4f}"}
                writer.writerow(row)
                sys.stdout.flush()
        finally:
            if decisions.windows:
                print(decisions.summary, file=sys.stderr)


@dataclass(kw_only=True)
class Report:
    """Answer from studies' tables what the temperature does: report.html, answer.json, figures/."""

    results: tyro.conf.Positional[tuple[Path, ...]]
    """folders of studies, results/NAME and, say, results/NAME-confirm"""
    out: Path | None = None
    """folder to write to; default: the first study's"""
    trained: Path | None = None
    """run of `catuvac train`, to show the clusters of; default: the best trial that left a checkpoint"""
    figures: Literal["pdf", "png", "none"] = "pdf"
    """format of figures/, for papers, beside the page"""

    def run(self) -> None:
        if not self.results:
            raise CatuvacError("no folder given; give the results folder of a study, such as results/NAME")
        from analysis import report

        print(printable(str(report.build(*self.results, out=self.out, run=self.trained, figures=self.figures))))


@dataclass(kw_only=True)
class Watch:
    """Look at a study, running or done, in TensorBoard and the Optuna dashboard; on loopback, until Ctrl-C.

    The addresses that it prints hold a secret, without which other users of the machine see nothing. Nothing can be
    changed through them."""

    results: tyro.conf.Positional[Path]
    """folder of a study, results/NAME"""
    tensorboard_port: int = 6006
    """where TensorBoard listens; the next free one where it is taken"""
    optuna_port: int = 8080
    """where the Optuna dashboard listens; the next free one where it is taken"""
    optuna_storage: str = ""
    """URL of the study's database; default: optuna.journal in its folder, else $CATUVAC_OPTUNA_STORAGE, which, unlike a
    flag, nobody else can read a password from"""

    def run(self) -> None:
        from catuvac.dashboards import watch

        watch(
            self.results,
            tensorboard_port=self.tensorboard_port,
            optuna_port=self.optuna_port,
            optuna_storage=self.optuna_storage,
        )


@dataclass(kw_only=True)
class Replay:
    """Train one trial of a study again, without Ray, and compare every metric; exit code 1 where one differs."""

    results: tyro.conf.Positional[Path]
    """folder of a study, results/NAME"""
    trial: tyro.conf.Positional[str]
    """its number or its trial_id"""
    data_root: Path | None = None
    """folder with the recordings, where the feature cache no longer holds them"""
    cache_dir: Path | None = None
    """feature cache; default: $CATUVAC_CACHE, else ~/.cache/catuvac"""
    device: str = "auto"
    """torch device; auto takes CUDA where the study did and it is present, else the CPU"""
    tolerance: float = 0.0
    """largest relative difference; 0 asks for equality bit for bit, which the same kind of processor gives"""

    def run(self) -> None:
        from catuvac.experiments.replay import replay

        replay(
            self.results,
            self.trial,
            data_root=self.data_root,
            cache_dir=self.cache_dir,
            device=self.device,
            tolerance=self.tolerance,
        )


def _export_module(name: str) -> Any:
    """A module of `catuvac.export`, whose libraries are an extra."""
    import importlib

    try:
        return importlib.import_module(f"catuvac.export.{name}")
    except ImportError as error:
        raise CatuvacError(f"no module {error.name}, which exports need: install catuvac[export]") from error


def _print_scores(scores: dict[str, dict[str, Any]], *, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", *scores, title=printable(title))
    for name in next(iter(scores.values())):
        values = [row.get(name) for row in scores.values()]
        table.add_row(name, *("–" if v is None else f"{v:.3f}" if isinstance(v, float) else str(v) for v in values))
    Console(markup=False, emoji=False).print(table)  # folders and columns may be called [/b] or :x:


def starting_settings(argv: Sequence[str]) -> Config:
    """The settings that the flags override: of --config FILE, else of --preset NAME, else of the default preset.

    Raises:
        CatuvacError: an unknown preset or an unreadable file.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default=Source.preset)
    parser.add_argument("--config", type=Path)
    try:
        known, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise CatuvacError(f"{error}; presets: {', '.join(PRESETS)}") from None
    return load_yaml(known.config) if known.config else preset(known.preset)


def _dispatch(argv: Sequence[str]) -> None:
    source: dict[str, Any] = {"settings": starting_settings(argv)}
    commands = (
        Annotated[Datasets, tyro.conf.subcommand("datasets")]
        | Annotated[Download, tyro.conf.subcommand("download")]
        | Annotated[Prepare, tyro.conf.subcommand("prepare", default=Prepare(**source))]
        | Annotated[Train, tyro.conf.subcommand("train", default=Train(out=tyro.MISSING, **source))]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Assign, tyro.conf.subcommand("assign")]
        | Annotated[Name, tyro.conf.subcommand("name")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Stream, tyro.conf.subcommand("stream")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Watch, tyro.conf.subcommand("watch")]
        | Annotated[Replay, tyro.conf.subcommand("replay")]
    )
    tyro.cli(
        commands,
        args=list(argv),
        prog="catuvac",
        description="Cluster unlabelled audio with a categorical variational model (Cat. UVAC).",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    ).run()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    arguments = expand_home(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(arguments))
