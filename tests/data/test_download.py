from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from catuvac.cli import main
from catuvac.config import CorpusConfig
from catuvac.data.corpora import CORPORA, index
from catuvac.data.download import SOURCES, Archive, Archives, Git, Soundata, fetch
from catuvac.errors import CatuvacError

CLIPS = [f"{number}-3-0-0.wav" for number in range(12)]
WORK = ".download-urbansound8k"
NOTE = "12 of 8732 clips (fold 1 of 10)"


@dataclass
class Server:
    """A real HTTP server on this machine."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # file and Range of every request
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers end, where given
    on_cut: Callable[[], object] = lambda: None
    ranges: bool = True  # whether it honours Range
    length: int = 0  # the Content-Length to claim instead of the true one
    address: str = ""

    def archive(self, path: Path) -> Archive:
        """Serves a file, and tells its address and sum."""
        self.files[path.name] = path.read_bytes()
        return Archive(path.name, f"{self.address}/{path.name}", hashlib.md5(path.read_bytes()).hexdigest())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, wanted = self.path[1:], self.headers["Range"]
            state.asked.append((name, wanted))
            if name not in state.files:
                return self.send_error(404)
            data = state.files[name]
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if start >= len(data):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(state.length or len(data) - start))
            self.end_headers()
            with suppress(ConnectionError):
                if state.cuts:
                    self.wfile.write(data[start:][: state.cuts.pop(0)])
                    state.on_cut()
                else:
                    self.wfile.write(data[start:])
            return None

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        state.address = f"http://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield state
        http.shutdown()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One fold of UrbanSound8K with twelve clips, 190 kB."""
    root = tmp_path / "made" / "UrbanSound8K"
    (root / "audio" / "fold1").mkdir(parents=True)
    (root / "metadata").mkdir()
    rng = np.random.default_rng(0)
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for number, name in enumerate(CLIPS):
        soundfile.write(root / "audio" / "fold1" / name, 0.1 * rng.normal(size=8000), 8000)
        rows.append(f"{name},{number},0.0,1.0,1,1,3,dog_bark")
    (root / "metadata" / "UrbanSound8K.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def packed(tree: Path) -> Path:
    """The tree as one zip."""
    return Path(shutil.make_archive(str(tree), "zip", tree.parent, tree.name))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root that does not exist yet, in a folder that does not either."""
    return tmp_path / "new" / "data"


def note(root: Path) -> str:
    return index(CorpusConfig(corpus="urbansound8k"), root).note


def source(*files: Archive) -> Archives:
    return Archives("UrbanSound8K", files)


def same(one: Path, other: Path) -> bool:
    names = [sorted(path.relative_to(tree) for path in tree.rglob("*") if path.is_file()) for tree in (one, other)]
    return names[0] == names[1] and all((one / name).read_bytes() == (other / name).read_bytes() for name in names[0])


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_archives_become_one_tree_that_the_loader_reads(server: Server, tree: Path, root: Path, kind: str) -> None:
    parts = [shutil.make_archive(str(tree.parent / p), kind, tree.parent, f"{tree.name}/{p}") for p in os.listdir(tree)]
    made = source(*(server.archive(Path(part)) for part in parts))
    assert fetch("urbansound8k", root, source=made) == root / "UrbanSound8K"
    assert same(root / "UrbanSound8K", tree)
    assert note(root) == NOTE
    assert os.listdir(root) == ["UrbanSound8K"]
    assert len(server.asked) == 2

    (root / "UrbanSound8K" / "mine").touch()
    fetch("urbansound8k", root, source=made)
    assert (root / "UrbanSound8K" / "mine").exists()
    assert len(server.asked) == 2


def test_a_cut_transfer_goes_on_in_the_same_call(server: Server, packed: Path, tree: Path, root: Path) -> None:
    server.cuts = [2**16]
    fetch("urbansound8k", root, source=source(server.archive(packed)))
    assert server.asked == [("UrbanSound8K.zip", None), ("UrbanSound8K.zip", f"bytes={2**16}-")]
    assert same(root / "UrbanSound8K", tree)


def test_a_second_call_fetches_only_what_is_missing(server: Server, packed: Path, root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "doc.zip", "w") as archive:
        archive.writestr("UrbanSound8K/README", "read me")
    made = source(server.archive(tmp_path / "doc.zip"), server.archive(packed))
    doc = server.files["doc.zip"]
    server.cuts = [len(doc), 2**16, 0]
    with pytest.raises(CatuvacError, match=r"to resume the download, or put UrbanSound8K\.zip into"):
        fetch("urbansound8k", root, source=made)
    assert os.listdir(root) == [WORK]

    server.asked.clear()
    fetch("urbansound8k", root, source=made)
    assert server.asked == [("UrbanSound8K.zip", f"bytes={2**16}-")]
    assert (root / "UrbanSound8K" / "README").read_text() == "read me"
    assert note(root) == NOTE
    assert os.listdir(root) == ["UrbanSound8K"]


def test_a_server_that_ignores_ranges_sends_the_whole_again(
    server: Server, packed: Path, tree: Path, root: Path
) -> None:
    server.ranges, server.cuts = False, [2**16]
    fetch("urbansound8k", root, source=source(server.archive(packed)))
    assert len(server.asked) == 2
    assert same(root / "UrbanSound8K", tree)


def test_a_whole_part_file_is_not_fetched_again(server: Server, packed: Path, root: Path) -> None:
    (root / WORK).mkdir(parents=True)
    shutil.copy(packed, root / WORK / "UrbanSound8K.zip.part")
    fetch("urbansound8k", root, source=source(server.archive(packed)))
    assert server.asked == [("UrbanSound8K.zip", f"bytes={packed.stat().st_size}-")]
    assert note(root) == NOTE


def test_an_archive_put_there_by_hand_is_used(server: Server, packed: Path, root: Path) -> None:
    (root / WORK).mkdir(parents=True)
    shutil.copy(packed, root / WORK)
    fetch("urbansound8k", root, source=source(server.archive(packed)))
    assert server.asked == []
    assert note(root) == NOTE


def test_a_wrong_checksum_is_named_and_the_archive_removed(server: Server, packed: Path, root: Path) -> None:
    good = server.archive(packed)
    server.files[packed.name] = b"x" + server.files[packed.name][1:]
    bad = hashlib.md5(server.files[packed.name]).hexdigest()
    with pytest.raises(CatuvacError, match=rf"UrbanSound8K.zip had the MD5 sum {bad}, not {good.md5}, and was removed"):
        fetch("urbansound8k", root, source=source(good))
    assert not root.parent.exists()


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_a_truncated_archive_is_one_error(server: Server, tree: Path, root: Path, kind: str) -> None:
    path = Path(shutil.make_archive(str(tree), kind, tree.parent, tree.name))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CatuvacError, match=rf"{path.name} is a broken archive \(.+\) and was removed") as error:
        fetch("urbansound8k", root, source=source(server.archive(path)))
    assert "\n" not in str(error.value)
    assert not root.parent.exists()


def test_no_member_of_an_archive_gets_out(server: Server, root: Path, tmp_path: Path) -> None:
    for name in ("../../../evil", "UrbanSound8K/../../../../evil", str(tmp_path / "evil")):
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
            archive.writestr("UrbanSound8K/README", "read me")
            archive.writestr(name, "got out")
        with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as packed:
            member = tarfile.TarInfo(name)
            member.size = 7
            packed.addfile(member, io.BytesIO(b"got out"))
        for path in (tmp_path / "evil.zip", tmp_path / "evil.tar.gz"):
            with pytest.raises(CatuvacError, match=r"evil lies outside the archive's folder\) and was removed"):
                fetch("urbansound8k", root, source=source(server.archive(path)))
    assert not list(tmp_path.rglob("evil"))
    assert not root.exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"zip"])
def test_members_that_are_no_files_are_refused(server: Server, root: Path, tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / ("odd.zip" if kind == b"zip" else "odd.tar.gz")
    if kind == b"zip":
        entry = zipfile.ZipInfo("UrbanSound8K/odd")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(entry, "/etc/passwd")
    else:
        member = tarfile.TarInfo("UrbanSound8K/odd")
        member.type, member.linkname = kind, "README"
        with tarfile.open(path, "w:gz") as packed:
            packed.addfile(member)
    with pytest.raises(CatuvacError, match=r"UrbanSound8K/odd is neither a file nor a folder\) and was removed"):
        fetch("urbansound8k", root, source=source(server.archive(path)))
    assert not root.exists()


def test_links_to_links_lead_nowhere(server: Server, root: Path, tmp_path: Path) -> None:
    # CVE-2025-4517: names so long that the filter's check of where they lead gives up before their end.
    outside, folder, path = tmp_path / "outside", "d" * 247, ""
    outside.mkdir()
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:

        def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, to
            archive.addfile(member)

        for step in "abcdefghijklmnop":
            link(os.path.join(path, folder), "", tarfile.DIRTYPE)
            link(os.path.join(path, step), folder)
            path = os.path.join(path, folder)
        far = os.path.join("/".join("abcdefghijklmnop"), "l" * 254)
        link(far, "../" * 16)
        link("escape", f"{far}/../../../../../../../../../..{outside}")
        member = tarfile.TarInfo("escape/written")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(CatuvacError, match="is neither a file nor a folder"):
        fetch("urbansound8k", root, source=source(server.archive(tmp_path / "evil.tar.gz")))
    assert os.listdir(outside) == []


def test_an_archive_put_there_by_hand_is_never_deleted(server: Server, packed: Path, tree: Path, root: Path) -> None:
    (root / WORK).mkdir(parents=True)
    bad = b"x" + packed.read_bytes()[1:]
    (root / WORK / packed.name).write_bytes(bad)
    aside = root / f"{packed.name}.damaged"
    with pytest.raises(CatuvacError, match=f"and was set aside as {aside}: run this again"):
        fetch("urbansound8k", root, source=source(server.archive(packed)))
    assert aside.read_bytes() == bad
    fetch("urbansound8k", root, source=source(server.archive(packed)))
    assert same(root / "UrbanSound8K", tree)
    assert aside.read_bytes() == bad


def test_two_downloads_at_once_are_one(server: Server, packed: Path, tree: Path, root: Path) -> None:
    made = source(server.archive(packed))
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch("urbansound8k", root, source=made))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [root / "UrbanSound8K"] * 3
    assert len(server.asked) == 1
    assert same(root / "UrbanSound8K", tree)
    assert os.listdir(root) == ["UrbanSound8K"]


def test_archives_of_something_else_are_refused(server: Server, packed: Path, root: Path) -> None:
    with pytest.raises(CatuvacError, match=r"UrbanSound8K.zip contain no folder ESC-50"):
        fetch("urbansound8k", root, source=Archives("ESC-50", (server.archive(packed),)))
    assert not (root / "ESC-50").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full: Linux has one")
def test_a_disk_that_fills_up_keeps_the_part(server: Server, packed: Path, root: Path) -> None:
    part = root / WORK / "UrbanSound8K.zip.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(CatuvacError, match=rf"is full; free {packed.stat().st_size / 1000:.1f} kB for the rest"):
        fetch("urbansound8k", root, source=source(server.archive(packed)))
    assert part.is_symlink()
    assert os.listdir(root) == [WORK]


def test_a_disk_that_is_too_small_is_found_before_the_first_byte(server: Server, packed: Path, root: Path) -> None:
    server.length = 10**18
    with pytest.raises(CatuvacError, match=r"UrbanSound8K.zip needs 1\.0 EB and the disk of .* free"):
        fetch("urbansound8k", root, source=source(server.archive(packed)))
    assert not root.parent.exists()


def test_an_unreachable_host_leaves_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = Archive("UrbanSound8K.zip", "http://127.0.0.1:1/UrbanSound8K.zip", "0")
    with pytest.raises(CatuvacError) as error:
        fetch("urbansound8k", root, source=Archives("UrbanSound8K", (gone,), licence="for all but you"))
    for words in (gone.url, "from 127.0.0.1", f"put UrbanSound8K.zip into {root / WORK} by hand"):
        assert words in str(error.value)
    assert not root.parent.exists()
    assert capsys.readouterr().out == f"licence of urbansound8k: {CORPORA['urbansound8k'].licence}\nfor all but you\n"


def test_an_answer_that_is_an_error_is_named(server: Server, root: Path) -> None:
    gone = Archive("gone.zip", f"{server.address}/gone.zip", "0")
    with pytest.raises(CatuvacError, match=r"cannot fetch .*/gone.zip from 127.0.0.1 \(404 Not Found\)"):
        fetch("urbansound8k", root, source=source(gone))
    assert not root.parent.exists()


def test_an_interrupted_transfer_leaves_no_tree_and_goes_on(
    server: Server, packed: Path, tree: Path, root: Path
) -> None:
    part, over = root / WORK / "UrbanSound8K.zip.part", threading.Event()

    def ctrl_c() -> None:
        deadline = time.monotonic() + 10
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(10)

    server.cuts, server.on_cut = [2**17 + 5], ctrl_c
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started with & would ignore Ctrl-C
    try:
        with pytest.raises(KeyboardInterrupt):
            fetch("urbansound8k", root, source=source(server.archive(packed)))
    finally:
        signal.signal(signal.SIGINT, before)
        over.set()
    assert os.listdir(root) == [WORK]
    had = part.stat().st_size
    assert 0 < had <= 2**17 + 5

    fetch("urbansound8k", root, source=source(server.archive(packed)))
    assert server.asked[-1] == ("UrbanSound8K.zip", f"bytes={had}-")
    assert same(root / "UrbanSound8K", tree)


# ---- git


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Git:
    """AudioMNIST with three speakers, in a repository on this machine; the pinned commit is not the newest."""
    folder = tmp_path / "upstream"
    rng = np.random.default_rng(0)
    for speaker in ("01", "02", "03"):
        (folder / "data" / speaker).mkdir(parents=True)
        for digit in range(4):
            soundfile.write(folder / "data" / speaker / f"{digit}_{speaker}_0.wav", 0.1 * rng.normal(size=800), 8000)
    (folder / "data" / "audioMNIST_meta.txt").write_text('{"01": {"gender": "female"}}')
    (folder / "LICENSE").write_text("MIT")
    (folder / "train.py").touch()
    git(folder, "init", "--quiet")
    for setting in ("allowFilter", "allowAnySHA1InWant"):
        git(folder, "config", f"uploadpack.{setting}", "true")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=one")
    commit = git(folder, "rev-parse", "HEAD")
    git(folder, "rm", "--quiet", "-r", "data/03")
    git(folder, "commit", "--quiet", "--message=two")
    git(folder, "checkout", "--quiet", commit)
    return Git("AudioMNIST", folder.as_uri(), commit, ("LICENSE", "README.md", "data/"))


def test_a_repository_is_fetched_at_its_commit(
    repository: Git, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    assert fetch("audiomnist", root, source=repository) == root / "AudioMNIST"
    assert sorted(os.listdir(root / "AudioMNIST")) == ["LICENSE", "data"]
    assert same(root / "AudioMNIST" / "data", tmp_path / "upstream" / "data")
    assert os.listdir(root) == ["AudioMNIST"]
    clips = index(CorpusConfig(corpus="audiomnist"), root)
    assert clips.note == "12 of 30000 clips (3 of 60 speakers)"
    assert set(clips.clips["gender"]) == {"female", "unknown"}
    # Once for the commit, the licence, the metadata and each speaker: not once a file.
    assert (tmp_path / "trace").read_text().count("built-in: git fetch") == 6


def test_a_repository_goes_on_after_an_interruption(repository: Git, root: Path, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    name = git(upstream, "rev-parse", f"{repository.commit}:data/02/2_02_0.wav")
    lost = upstream / ".git" / "objects" / name[:2] / name[2:]
    lost.rename(tmp_path / "lost")
    with pytest.raises(CatuvacError, match=f"cannot fetch {repository.url}: .*; run this again .*{repository.commit}"):
        fetch("audiomnist", root, source=repository)
    assert os.listdir(root) == [".download-audiomnist"]
    work = root / ".download-audiomnist"
    assert not (work / "AudioMNIST" / "data" / "02").exists()
    done = {path: path.stat().st_ino for path in (work / "AudioMNIST" / "data" / "01").iterdir()}
    assert len(done) == 4

    # What a git that is killed while it writes leaves behind.
    (tmp_path / "lost").rename(lost)
    (work / "git" / "index.lock").touch()
    (work / "AudioMNIST" / "data" / "02").mkdir()
    (work / "AudioMNIST" / "data" / "02" / "0_02_0.wav").write_bytes(b"RIFF")
    fetch("audiomnist", root, source=repository)
    assert same(root / "AudioMNIST" / "data", upstream / "data")
    assert {path.stat().st_ino for path in (root / "AudioMNIST" / "data" / "01").iterdir()} == set(done.values())
    assert os.listdir(root) == ["AudioMNIST"]


@pytest.mark.parametrize("what", ["repository", "commit", "git"])
def test_a_repository_that_cannot_be_had_leaves_nothing(
    repository: Git, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    url = (tmp_path / "nowhere").as_uri() if what == "repository" else repository.url
    commit = "0" * 39 + "1" if what == "commit" else repository.commit
    if what == "git":
        monkeypatch.setenv("PATH", str(tmp_path))
    words = "install git" if what == "git" else f"cannot fetch {url}: .*{commit} and put its .* into {root}/AudioMNIST"
    with pytest.raises(CatuvacError, match=words):
        fetch("audiomnist", root, source=Git("AudioMNIST", url, commit, repository.paths))
    assert not root.parent.exists()


# ---- the table and the command


def test_every_archive_of_the_table_is_pinned() -> None:
    files = {name: pinned.archives().files for name, pinned in SOURCES.items() if isinstance(pinned, Soundata)}
    assert [archive.name for archive in files["urbansound8k"]] == ["UrbanSound8K.tar.gz"]
    assert len(files["tau2019"]) == 23
    for archive in (*files["urbansound8k"], *files["tau2019"]):
        assert archive.name in archive.url
        assert archive.name.endswith((".zip", ".tar.gz"))
        assert archive.url.startswith("https://")
        assert len(bytes.fromhex(archive.md5)) == 16


@pytest.mark.parametrize("module", ["soundata", "pooch"])
def test_a_missing_package_names_the_extra(root: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # what makes Python say that it is not installed
    with pytest.raises(CatuvacError, match=r"install catuvac\[datasets\]"):
        fetch("urbansound8k", root, source=source() if module == "pooch" else None)
    assert not root.parent.exists()


def test_download_command(
    repository: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    monkeypatch.setitem(SOURCES, "audiomnist", repository)
    assert main(["download", "audiomnist", "--data-root", str(root)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["licence of audiomnist: MIT", f"{root / 'AudioMNIST'}: 12 of 30000 clips (3 of 60 speakers)"]

    assert main(["download", "audiomnits", "--data-root", str(root)]) == 2
    assert "did you mean 'audiomnist'?" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["download", "audiomnist", "--data-root", str(tmp_path / "file")]) == 2
    assert f"error: cannot write to {tmp_path / 'file'}: " in capsys.readouterr().err
