"""`catuvac download`: fetches a pinned and checked corpus to the folder where its loader expects it.

There are two kinds of source. Archives come over HTTP, with the URLs and MD5 sums that soundata maintains. A git
repository is pinned to a commit, whose name is a hash of its content: git itself rejects a file that differs. Either is
collected in the hidden folder `.download-NAME` of the data root, which survives an interruption, and renamed into place
when complete. A second download of the same corpus into the same root waits for the first.
"""

from __future__ import annotations

import errno
import gzip
import importlib
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    track,
)

from catuvac import io
from catuvac.config import unknown
from catuvac.data.corpora import CORPORA
from catuvac.errors import CatuvacError, printable

# Zenodo asks clients to identify themselves and at times throttles default user agents; a compressed response would
# not have the length that its header states.
HEADERS = {"User-Agent": "catuvac", "Accept-Encoding": "identity"}
TIMEOUT = 30  # s without data (git: with hardly any)
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    lzma.LZMAError,
    RuntimeError,  # zipfile: encryption or an unknown compression method
    ValueError,  # tarfile: malformed numbers
)
CHUNK = 1 << 16  # bytes; a broken connection loses the last chunk


@dataclass(frozen=True)
class Git:
    """Folders of a git repository at one commit."""

    folder: str  # its name below the data root
    url: str
    commit: str
    paths: tuple[str, ...]  # those that exist are fetched, one at a time; `data/` means each entry of data


@dataclass(frozen=True)
class Archive:
    """One file to unpack."""

    name: str  # of the file, ending in .zip or .tar.gz
    url: str
    md5: str


@dataclass(frozen=True)
class Archives:
    """Archives that unpack to one tree."""

    folder: str  # the tree, in the archives and below the data root
    files: tuple[Archive, ...]
    licence: str = ""  # in the source's words


@dataclass(frozen=True)
class Soundata:
    """Archives whose URLs, checksums and licence soundata maintains."""

    folder: str
    dataset: str  # soundata's name for it
    keys: str  # prefix of the keys of the wanted remotes

    def archives(self) -> Archives:
        try:
            dataset = importlib.import_module(f"soundata.datasets.{self.dataset}")
        except ImportError as error:
            raise _lacking(error) from error
        remotes = [remote for key, remote in dataset.REMOTES.items() if key.startswith(self.keys)]
        files = tuple(Archive(remote.filename, remote.url, remote.checksum) for remote in remotes)
        return Archives(self.folder, files, dataset.LICENSE_INFO.strip())


SOURCES: dict[str, Git | Soundata] = {
    "audiomnist": Git(
        folder="AudioMNIST",
        url="https://github.com/soerenab/AudioMNIST",
        commit="8d77a2d8754105541742115cefec1e537040a6cf",
        paths=("LICENSE", "README.md", "data/"),
    ),
    "fsdd": Git(
        folder="fsdd",
        url="https://github.com/Jakobovski/free-spoken-digit-dataset",
        commit="d6938f9bf1545aa66d8489fc9f1385a7abd64282",  # v1.0.10
        paths=("README.md", "recordings"),  # the README states the licence
    ),
    "urbansound8k": Soundata(folder="UrbanSound8K", dataset="urbansound8k", keys="all"),
    "tau2019": Soundata(folder="TAU-urban-acoustic-scenes-2019-development", dataset="tau2019uas", keys="development."),
}


def fetch(name: str, data_root: Path, *, source: Git | Archives | None = None) -> Path:
    """Fetches the corpus `name` and returns its folder below `data_root`; leaves an existing folder unchanged.

    After an interruption, a second call fetches only what is missing. `source` replaces the corpus's own.

    Raises:
        CatuvacError: an unknown name, an unreachable source, a wrong checksum, a broken archive, a disk that is full or
            not writable, no git, or no `datasets` extra.
    """
    if name not in SOURCES:
        raise CatuvacError(unknown("download", name, SOURCES))
    if source is None:
        pinned = SOURCES[name]
        source = pinned.archives() if isinstance(pinned, Soundata) else pinned
    target = data_root / source.folder
    if target.exists():
        return target
    print(f"licence of {name}: {CORPORA[name].licence}", flush=True)
    if isinstance(source, Archives):
        print(source.licence, flush=True)
    try:
        with _work_folder(data_root / f".download-{name}") as work:
            if target.exists():  # created by the download that this one waited for
                return target
            tree = _checkout(source, work, target) if isinstance(source, Git) else _unpacked(source, work)
            os.sync()  # the rename must not reach the disk before the content of thousands of files
            tree.rename(target)
            shutil.rmtree(work)
    except OSError as error:
        raise CatuvacError(
            f"cannot write to {data_root}: {error.strerror or error}; fix that and run this again, what was fetched "
            "is kept"
        ) from error
    return target


@contextmanager
def _work_folder(work: Path) -> Iterator[Path]:
    """Creates `work` for this process alone; finally removes it and the parents that it created, if they are empty."""
    made = [parent for parent in work.parents if not parent.exists()]
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        with io.locked(work.with_name(f"{work.name}.lock"), waiting="downloads the same corpus", remove=True):
            work.mkdir(exist_ok=True)
            try:
                yield work
            finally:
                with suppress(OSError):
                    work.rmdir()
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _lacking(error: ImportError) -> CatuvacError:
    return CatuvacError(f"no module {error.name}, which this download needs: install catuvac[datasets]")


# ---- archives


def _unpacked(source: Archives, work: Path) -> Path:
    """Fetches, checks and unpacks the missing archives, one at a time, and returns the tree that they form together."""
    try:
        import pooch  # type: ignore[import-untyped]
    except ImportError as error:
        raise _lacking(error) from error
    parts = {archive: work / f"{archive.name}.unpacked" for archive in source.files}
    for archive, part in parts.items():
        if part.exists():
            continue
        path = work / archive.name
        by_hand = path.exists()
        if not by_hand:
            wanted = [other.name for other in parts if not (parts[other].exists() or (work / other.name).exists())]
            _download(archive.url, path, by_hand=f"put {', '.join(wanted)} into {work}")
        md5 = pooch.file_hash(str(path), alg="md5")
        if md5 != archive.md5:
            raise CatuvacError(f"{path} had the MD5 sum {md5}, not {archive.md5}, and {_discard(path, keep=by_hand)}")
        try:
            _unpack(path, part)
        except ARCHIVE_ERRORS as error:
            raise CatuvacError(
                f"{path} is a broken archive ({' '.join(str(error).split())}) and {_discard(path, keep=by_hand)}"
            ) from error
        path.unlink()
    tree = work / "tree"
    for part in parts.values():
        shutil.copytree(part, tree, copy_function=os.replace, dirs_exist_ok=True)
    if not (tree / source.folder).is_dir():
        names = ", ".join(archive.name for archive in source.files)
        raise CatuvacError(f"{names} contain no folder {source.folder}: look at what they do contain, in {tree}")
    return tree / source.folder


def _discard(path: Path, *, keep: bool) -> str:
    """Removes a useless archive, or sets it aside if it may be the user's own download; returns what it did."""
    if keep:
        aside = path.parent.parent / f"{path.name}.damaged"
        path.replace(aside)
        return f"was set aside as {aside}: run this again to download another copy, or put an intact one at {path}"
    path.unlink()
    return "was removed: run this again to download another copy"


def _unpack(path: Path, folder: Path) -> None:
    """Unpacks to `folder`, completely or not at all; no member is written outside it.

    Raises:
        one of `ARCHIVE_ERRORS`: the archive is damaged, or has a member that is neither a file nor a folder, or whose
            name leads outside; OSError: a member is larger than the disk's free space.
    """
    draft = folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)  # left by a process that was killed
    draft.mkdir(parents=True)
    try:
        with Console(stderr=True).status(f"unpacking {path.name}"):
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    for entry in archive.infolist():
                        mode = entry.external_attr >> 16  # of Unix; 0 if another system created the archive
                        plain = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
                        _check_member(entry.filename, plain=plain, size=entry.file_size, folder=draft)
                        archive.extract(entry, draft)
            else:
                with tarfile.open(path) as archive:
                    archive.extractall(draft, members=_plain_members(archive, draft), filter="data")
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _plain_members(archive: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    for member in archive:  # read while unpacking: an archive of gigabytes is decompressed only once
        plain = member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        _check_member(member.name, plain=plain, size=member.size, folder=folder)
        yield member


def _check_member(name: str, *, plain: bool, size: int, folder: Path) -> None:
    """Rejects members that no corpus has and that can escape the folder: CVE-2025-4517 needs links to links."""
    if not plain:
        raise tarfile.TarError(f"{printable(name)} is neither a file nor a folder")
    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise tarfile.TarError(f"{printable(name)} lies outside the archive's folder")
    if size > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _download(url: str, path: Path, *, by_hand: str) -> None:
    """Fetches `url` to `path` via `path.part`, from which it resumes after an interruption."""
    import requests

    part = path.with_name(f"{path.name}.part")
    size = _size(part)
    while True:
        try:
            _transfer(url, part)
            break
        except requests.RequestException as error:
            if _size(part) <= size:  # a broken connection is resumed as long as each attempt brings bytes
                answer = f"{error.response.status_code} {error.response.reason}" if error.response is not None else ""
                raise CatuvacError(
                    f"cannot fetch {url} from {urlsplit(url).hostname} ({answer or type(error).__name__}): run this "
                    f"again when connected to resume the download, or {by_hand} by hand and run this again"
                ) from error
            size = _size(part)
    part.rename(path)


def _transfer(url: str, part: Path) -> None:
    """Requests the bytes that `part` lacks."""
    import requests

    start = _size(part)
    headers = HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # no byte is missing; the checksum detects surplus ones
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            start = 0  # a server that cannot resume sends the whole file
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        free = shutil.disk_usage(part.parent).free
        if total and total - start > free:
            raise CatuvacError(
                f"{part.stem} needs {decimal(total - start)} and the disk of {part.parent} has {decimal(free)} free: "
                "free the rest, or give another --data-root"
            )
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        progress = Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True))
        try:
            with progress, part.open("ab" if start else "wb") as file:
                task = progress.add_task(part.stem, total=total, completed=start)
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    progress.advance(task, len(chunk))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            missing = f"{decimal(total - _size(part))} for the rest of {part.stem}" if total else "some space"
            raise CatuvacError(
                f"the disk of {part.parent} is full; free {missing} and run this again, what was fetched is kept"
            ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# ---- git


def _checkout(source: Git, work: Path, target: Path) -> Path:
    """Checks out what is missing, one path at a time, and returns the tree."""
    repository, tree = work / "git", work / source.folder
    new = not repository.exists()
    tree.mkdir(exist_ok=True)
    for lock in repository.rglob("*.lock"):
        lock.unlink()  # left by a git that was killed: only this command uses the folder

    def git(*arguments: str, stdin: str = "") -> list[str]:
        # A connection below 1 kB/s counts as lost, and no gc may continue in the background.
        settings = ["-c", "http.lowSpeedLimit=1000", "-c", f"http.lowSpeedTime={TIMEOUT}", "-c", "gc.auto=0"]
        done = subprocess.run(
            ["git", f"--git-dir={repository}", f"--work-tree={tree}", *settings, *arguments],
            input=stdin,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = next(iter(done.stderr.splitlines()), f"git ended with {done.returncode}")
            raise CatuvacError(
                f"cannot fetch {source.url}: {reason}; run this again when "
                f"connected to resume the download, or clone it by hand, check out {source.commit} and put "
                f"its {', '.join(source.paths)} into {target}"
            )
        return done.stdout.splitlines()

    try:
        git("init", "--quiet")
        git("config", "remote.origin.url", source.url)
        git("fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", source.commit)
    except BaseException as error:
        if new:  # nothing to resume from
            shutil.rmtree(repository, ignore_errors=True)
            tree.rmdir()
        if isinstance(error, FileNotFoundError):
            raise CatuvacError("git is not installed, and this download needs it: install git") from error
        raise
    paths = git("ls-tree", "--name-only", source.commit, *source.paths)
    for path in track(paths, source.folder, console=Console(stderr=True)):
        # By itself, `checkout` requests one file at a time from the server.
        objects = git("rev-list", "--objects", "--missing=print", source.commit, "--", path)
        missing = [line[1:] for line in objects if line.startswith("?")]
        if missing:
            options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--stdin")
            git("-c", "fetch.negotiationAlgorithm=noop", "fetch", *options, "origin", stdin="\n".join(missing))
        git("checkout", "--quiet", source.commit, "--", path)
    return tree
