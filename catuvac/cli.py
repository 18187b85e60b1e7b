"""The `catuvac` command, with one dataclass per sub-command.

Heavy imports are inside the commands: `catuvac --help` must respond in under a second, and no command imports Ray.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from catuvac.config import PRESETS, Config, CorpusConfig, check_threads, load_yaml, preset
from catuvac.errors import CatuvacError, guarded, printable
from catuvac.io import expand_home

if TYPE_CHECKING:
    from catuvac.data.store import FeatureSet

Settings = Annotated[Config, tyro.conf.arg(name="")]


@dataclass(kw_only=True)
class Source:
    """Locations of the settings, the recordings and the cache."""

    preset: str = "synthetic"
    """preset whose settings the flags below override: synthetic, fsdd, arabic_digits,
    speech_commands, audiomnist, tau2019_k10, tau2019_k5, urbansound8k_k10, urbansound8k_k5 or folder"""
    config: Path | None = None
    """YAML file with the settings to override, instead of a preset, such as a study's best.yaml"""
    data_root: Path | None = None
    """folder with the recordings (not needed for the synthetic corpus)"""
    cache_dir: Path | None = None
    """feature cache; default: $CATUVAC_CACHE, else ~/.cache/catuvac"""
    workers: int = 0
    """threads for feature extraction; 0 uses all cores"""
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

        headings = ("corpus", "description", "licence", "nuisance columns", "recordings")
        table = Table(*(Column(heading, overflow="fold") for heading in headings))
        for corpus in CORPORA.values():
            where = "--data-root" if corpus.needs_root else "generated"
            table.add_row(corpus.name, corpus.description, corpus.licence, ", ".join(corpus.nuisances) or "–", where)
        Console().print(table)


@dataclass(kw_only=True)
class Download:
    """Download a pinned version of a corpus and verify it; run the command again to resume an interrupted download."""

    corpus: tyro.conf.Positional[str]
    """audiomnist, fsdd, urbansound8k or tau2019"""
    data_root: Path
    """folder to store it in; pass the same folder as --data-root to the other commands"""

    def run(self) -> None:
        from catuvac.data import corpora, download

        folder = download.fetch(self.corpus, self.data_root)
        print(f"{folder}: {corpora.index(CorpusConfig(corpus=self.corpus), self.data_root).note}")


@dataclass(kw_only=True)
class Prepare(Source):
    """Extract and cache the features of a corpus; later commands and trials memory-map the cache."""

    def run(self) -> None:
        features = self.prepare()
        n, frames, bands = features.x.shape
        splits = ", ".join(f"{len(rows)} {name}" for name, rows in features.splits.items())
        print(f"{features.note}: {n} usable clips, {len(features.skipped)} skipped; {splits}")
        print(f"features [N, T, F] = [{n}, {frames}, {bands}] in {features.path}")


@dataclass(kw_only=True)
class Train(Source):
    """Train one model and write its config, history, metrics and weights to a folder; training can be resumed."""

    out: Path
    """folder of the run; must not contain a run already, unless --resume is given"""
    resume: bool = False
    """continue the run in --out from its last checkpoint"""
    device: str = "auto"
    """torch device; auto uses CUDA if available, else the CPU"""
    threads: int = 0
    """CPU threads of torch; 0 keeps torch's default. Results are bit-identical only with the same number of threads"""

    def run(self) -> None:
        from catuvac.training import run_dir

        check_threads(self.threads)
        run_dir.check(self.out, self.settings, resume=self.resume)
        features = run_dir.features(self.out) or self.prepare()
        run_dir.train(self.out, self.settings, features, device=self.device, threads=self.threads, resume=self.resume)


@dataclass(kw_only=True)
class Evaluate:
    """Score a trained run on one split, next to k-means on the same features."""

    run_dir: tyro.conf.Positional[Path]
    """folder that `catuvac train` wrote"""
    split: Literal["train", "val", "test"] = "val"
    """clips to score; read the test split once, at the end"""
    json: bool = False
    """print JSON instead of a table"""
    data_root: Path | None = None
    """folder with the recordings, needed if the feature cache no longer contains their features"""
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
    """Assign a cluster and its probability to every recording, or to every window of long recordings."""

    model: tyro.conf.Positional[str]
    """folder of `catuvac train` or of a study (its best trial), or one trial of a study, such as results/NAME:7"""
    paths: tyro.conf.Positional[tuple[str, ...]]
    """recordings, folders of recordings, or - to read paths from standard input, one per line or NUL-terminated"""
    format: Literal["csv", "jsonl", "parquet", "audacity", "raven"] = "csv"
    """audacity: label tracks; raven: selection tables; both with one file per recording"""
    out: Path | None = None
    """output file, or a folder for several recordings as audacity or raven; default: standard output (csv, jsonl)"""
    window: float = 0.0
    """length in s of the windows that recordings are cut into, at most that of the clips in training unless these were
    cut into windows too (--context); 0 uses the start of each recording, as in training"""
    hop: float = 0.0
    """s between the starts of consecutive windows; 0 places them end to end"""
    undecided_above: float | None = None
    """entropy of q(y|x) in nats above which a clip counts as undecided; default: half of log K"""
    copy_to: Path | None = None
    """empty folder to copy every recording into, one sub-folder per cluster, with a page to listen to them"""
    link_to: Path | None = None
    """the same as --copy-to, with symbolic links"""

    def run(self) -> None:
        for name, value in (("window", self.window), ("hop", self.hop)):
            if not 0 <= value < math.inf:
                raise CatuvacError(f"--{name} must be finite and not negative, got {value} s")
        if self.hop and not self.window:
            raise CatuvacError("--hop needs a --window")
        folders = [folder for folder in (self.copy_to, self.link_to) if folder is not None]
        if len(folders) > 1 or (folders and self.window):
            raise CatuvacError("give only one of --copy-to and --link-to, and no --window: both sort whole recordings")
        from catuvac import assign, inference

        for folder in folders:
            assign.check_empty(folder)
        model = inference.load(self.model)
        paths = assign.expand(self.paths, stdin=sys.stdin.buffer)
        above = model.undecided_above if self.undecided_above is None else self.undecided_above
        rows = assign.assign(model, assign.progress(paths), window=self.window, hop=self.hop, undecided_above=above)
        written = assign.write(rows, out=self.out, format=self.format)
        if folders:
            print(f"page       {assign.sort_into(written, folders[0], link=self.link_to is not None)}", file=sys.stderr)
        unused = [row for row in written if row.reason]
        where = "their rows state why"
        if self.format in ("audacity", "raven"):  # which have no place for a reason
            where = "see above"
            for row in unused:
                print(printable(row.problem), file=sys.stderr)
        if unused:
            count = len({row.path for row in unused})
            raise CatuvacError(f"{count} of {len(paths)} recordings could not be used, or only in part; {where}")


@dataclass(kw_only=True)
class Name:
    """Name clusters of a model; all later outputs use the names: catuvac name MODEL 3=rain 5=wind."""

    model: tyro.conf.Positional[str]
    """as for catuvac assign"""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """CLUSTER=NAME; an empty NAME removes the name; without arguments, prints the current names"""

    def run(self) -> None:
        from catuvac import inference

        new_names = {}
        for argument in self.names:
            cluster, equals, name = argument.partition("=")
            if not equals or not cluster.isdecimal():
                raise CatuvacError(f"{argument!r} must have the form CLUSTER=NAME, such as 3=rain")
            new_names[int(cluster)] = name.strip()
        model = inference.load(self.model)
        if new_names:
            model = inference.rename(model, new_names)
        for number, name in enumerate(model.names):
            print(f"{number:3} {name or '–'}")


@dataclass(kw_only=True)
class Export:
    """Export a trained Cat. UVAC and its front end to ONNX, with a model card and its cost on a device.

    Every file is checked in onnxruntime against PyTorch, on clips of the validation split."""

    model: tyro.conf.Positional[str]
    """as for catuvac assign"""
    to: Literal["onnx"] = "onnx"
    """format of the file"""
    int8: bool = False
    """also write model-int8.onnx, with int8 convolutions calibrated on training clips"""
    out: Path | None = None
    """folder to write to; default: export/ in the model's folder"""

    def run(self) -> None:
        from catuvac import inference

        write = _export_module("write")
        model = inference.load(self.model)
        assert model.folder is not None  # a loaded model has a folder
        out = self.out or model.folder / "export"
        result = write.export(model, out=out, int8=self.int8)
        for quantity, value in write.budget_rows(model, result):
            print(f"{quantity:50} {value}")
        print(f"checked on {result.checked_on}; see {out}")
        if warning := write.warning(result):
            print(f"warning: {warning}", file=sys.stderr)


@dataclass(kw_only=True)
class Stream:
    """Print the cluster of every window of sound as it arrives, one line per window, and a summary at the end.

    time: end of the window in s; state: the current cluster, which changes only by more than --hysteresis."""

    model: tyro.conf.Positional[str]
    """as for catuvac assign, or a file of catuvac export"""
    source: tyro.conf.Positional[str] = "-"
    """recording, named pipe, or - for standard input; a pipe must carry a WAV file of 16-bit samples"""
    raw: bool = False
    """the pipe has no header: it carries signed 16-bit little-endian mono samples at --rate"""
    rate: int = 0
    """sample rate in Hz of raw samples, or the rate that a pipe's header must state"""
    device: str = ""
    """live input to read instead of a source: its number or part of its name (needs the extra `live`)"""
    hop: float = 0.0
    """s between the ends of consecutive windows; 0 places them end to end"""
    smooth: int = 1
    """number of windows, up to the current one, whose logits are averaged"""
    hysteresis: float = 0.1
    """margin in [0, 1) by which a cluster's probability must exceed that of the state to replace it"""
    timeout: float = 10.0
    """s without a byte after which a pipe counts as stalled"""
    threads: int = 1
    """CPU threads for inference"""

    def run(self) -> None:
        for name, value, good in (
            ("hop", self.hop, 0 <= self.hop < math.inf),
            ("rate", self.rate, self.rate >= 0),
            ("smooth", self.smooth, self.smooth >= 1),
            ("hysteresis", self.hysteresis, 0 <= self.hysteresis < 1),
            ("timeout", self.timeout, 0 < self.timeout < math.inf),
            ("threads", self.threads, self.threads >= 1),
        ):
            if not good:
                raise CatuvacError(f"--{name} {value} is out of range; see catuvac stream --help")
        pipe = self.source == "-" or Path(self.source).is_fifo()
        if self.raw and not self.rate:
            raise CatuvacError("raw samples need a sample rate: give --rate HZ")
        if (self.raw or self.rate) and (self.device or not pipe):
            raise CatuvacError("--raw and --rate describe a pipe: leave them out for a file or --device")
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
    """Report the effect of the temperature from the tables of studies: report.html, answer.json, figures/."""

    results: tyro.conf.Positional[tuple[Path, ...]]
    """folders of studies, such as results/NAME and results/NAME-confirm"""
    out: Path | None = None
    """folder to write to; default: the folder of the first study"""
    trained: Path | None = None
    """run of `catuvac train` whose clusters are shown; default: the best trial that has a checkpoint"""
    figures: Literal["pdf", "png", "none"] = "pdf"
    """format of the separate figures in figures/, for papers"""

    def run(self) -> None:
        if not self.results:
            raise CatuvacError("no folder given; give the results folder of a study, such as results/NAME")
        # The package does not import what analyses its tables: pyproject.toml names it.
        (page,) = entry_points(group="catuvac.pages", name="report")
        print(printable(str(page.load()(*self.results, out=self.out, run=self.trained, figures=self.figures))))


@dataclass(kw_only=True)
class Watch:
    """Show a running or finished study in TensorBoard and the Optuna dashboard, on loopback, until Ctrl-C.

    The printed addresses contain a secret, without which other users of the machine have no access. Access is
    read-only."""

    results: tyro.conf.Positional[Path]
    """folder of a study, results/NAME"""
    tensorboard_port: int = 6006
    """port of TensorBoard; if it is taken, the next free port is used"""
    optuna_port: int = 8080
    """port of the Optuna dashboard; if it is taken, the next free port is used"""
    optuna_storage: str = ""
    """URL of the study's database; default: optuna.journal in its folder, else $CATUVAC_OPTUNA_STORAGE, where a
    password belongs, because other users can read flags"""

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
    """Train one trial of a study again, without Ray, and compare every metric; the exit code is 1 if one differs."""

    results: tyro.conf.Positional[Path]
    """folder of a study, results/NAME"""
    trial: tyro.conf.Positional[str]
    """number or trial_id of the trial"""
    data_root: Path | None = None
    """folder with the recordings, needed if the feature cache no longer contains their features"""
    cache_dir: Path | None = None
    """feature cache; default: $CATUVAC_CACHE, else ~/.cache/catuvac"""
    device: str = "auto"
    """torch device; auto uses CUDA if the study used it and it is available, else the CPU"""
    tolerance: float = 0.0
    """largest accepted relative difference; 0 requires bit-identical metrics, which the same kind of processor gives;
    on a GPU sums over clusters are in no fixed order, so that the last digits may differ"""

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
    """Imports a module of `catuvac.export`, whose dependencies are an extra."""
    import importlib

    try:
        return importlib.import_module(f"catuvac.export.{name}")
    except ImportError as error:
        raise CatuvacError(f"exports need the module {error.name}: install catuvac[export]") from error


def _print_scores(scores: dict[str, dict[str, Any]], *, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", *scores, title=printable(title))
    for name in next(iter(scores.values())):
        values = [row.get(name) for row in scores.values()]
        table.add_row(name, *("–" if v is None else f"{v:.3f}" if isinstance(v, float) else str(v) for v in values))
    Console(markup=False, emoji=False).print(table)  # folders and columns may be called [/b] or :x:


def starting_settings(argv: Sequence[str]) -> Config:
    """Returns the settings that the flags override: of --config FILE, of --preset NAME, or of the default preset.

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
