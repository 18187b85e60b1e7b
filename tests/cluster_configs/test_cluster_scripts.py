"""The scripts of `cluster_configs/`, run by bash; stubs that note their calls stand for Slurm, Ray and Python."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOKEN_BYTES = 64  # hexadecimal digits of 256 bits

# Every stub notes its arguments, one call a line.
NOTE = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$LOG/calls"
"""
STUBS = {
    "scontrol": 'if [[ $1 == show ]]; then tr , "\\n" <<<"$3"; fi',
    # As Slurm: runs the step's command, in a process that `scancel --signal` reaches, and dies at once of a SIGTERM.
    "srun": """
while [[ $1 == --* ]]; do shift; done
"$@" &
echo $! >>"$LOG/tasks"
trap 'kill -KILL $! $(<"$LOG/rays"); exit 1' TERM
wait $!""",
    "scancel": 'while read -r task; do kill -TERM "$task" 2>/dev/null; done <"$LOG/tasks"; true',
    "ray": """
case "$1 $2" in
  "start --head"|"start --address"*)
    if [[ $* != *--block* ]]; then touch "$LOG/up"; exit 0; fi
    echo $$ >>"$LOG/rays"
    if [[ $* == *--head* && -e $LOG/head-dies ]]; then exit 3; fi
    if [[ $* == *--head* ]]; then
      stat -c %a "$RAY_AUTH_TOKEN_PATH" >"$LOG/mode"
      cp "$RAY_AUTH_TOKEN_PATH" "$LOG/token"
    fi
    temp=${*: -1}; mkdir "${temp#--temp-dir=}"
    [[ $* == *--head* && ! -e $LOG/head-silent ]] && touch "$LOG/up"
    trap 'echo "ray ended" >>"$LOG/calls"; exit 0' TERM
    while true; do sleep 0.05; done ;;
  "job list") [[ -e $LOG/up ]] ;;
  "job submit")
    [[ -e $LOG/up && -s $RAY_AUTH_TOKEN_PATH && $RAY_AUTH_MODE == token ]] || exit 4
    if [[ $* == *"--no-wait -- true" ]]; then exit 0; fi
    while [[ $1 != -- ]]; do shift; done
    shift
    exec "$@" ;;
esac""",
    # The study: its folder, then done, or failed, or busy for a long time.
    "python": """
if [[ $1 == cluster_configs/start_head.py ]]; then shift; exec ray start --head "$@"; fi
[[ $1 == studies/tau_sweep.py ]] || exit 5
mkdir -p "$STORAGE/$3"; touch "$STORAGE/$3/study.json"
touch "$LOG/studying"
if [[ -e $LOG/long ]]; then exec sleep 60; fi
if [[ -e $LOG/fails ]]; then exit 1; fi""",
    "git": "echo 0123abc",
    "hostname": "echo here",
}


@dataclass
class Machine:
    """A folder with stubs, a checkout's scripts and a home."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def nodes(self) -> Path:
        """The disk of the nodes, which are one machine here."""
        return self.root / "nodes"

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    def calls(self, start: str = "") -> list[str]:
        path = self.log / "calls"
        return [line for line in path.read_text().splitlines() if line.startswith(start)] if path.exists() else []

    def say(self, name: str) -> None:
        (self.log / name).touch()

    def start(self, script: str, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", f"cluster_configs/{script}", *args],
            cwd=self.root / "checkout",
            env={**os.environ, **self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *args: str, **env: str) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(script, *args, **env)
        output, _ = process.communicate(timeout=30)
        return process.returncode, output

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while not (self.log / name).exists():
            assert time.monotonic() < deadline, f"{name} did not come; calls: {self.calls()}"
            time.sleep(0.02)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    checkout = tmp_path / "checkout"
    (checkout / "studies").mkdir(parents=True)
    (checkout / "studies" / "tau_sweep.py").touch()
    shutil.copytree(ROOT / "cluster_configs", checkout / "cluster_configs", ignore=shutil.ignore_patterns("monitoring"))
    stubs = tmp_path / "bin" / "bin"
    stubs.mkdir(parents=True)
    for name, body in STUBS.items():
        (stubs / name).write_text(NOTE + body + "\n")
        (stubs / name).chmod(0o755)
    for folder in (made.log, made.nodes, made.storage, tmp_path / "home"):
        folder.mkdir()
    made.env = {
        "PATH": f"{stubs}:/usr/bin:/bin",
        "VENV": str(tmp_path / "bin"),
        "HOME": str(tmp_path / "home"),
        "LOG": str(made.log),
        "RAY_TMPDIR": str(made.nodes),
        "STORAGE": str(made.storage),
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "n1,n2,n3",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_SUBMIT_DIR": str(checkout),
    }
    # Three nodes are one machine here: each task makes the folder of its own node.
    sbatch = checkout / "cluster_configs" / "slurm.sbatch"
    sbatch.write_text(sbatch.read_text().replace("temp=$1; shift", "temp=$1-$BASHPID; shift"))
    return made


def left_behind(machine: Machine) -> list[Path]:
    """Private folders on the storage and on the nodes."""
    return [*machine.storage.glob(".ray-*"), *machine.nodes.iterdir()]


# ---- Slurm


def test_a_slurm_job_runs_the_study_on_all_nodes_and_cleans_up(machine: Machine) -> None:
    code, output = machine.run("slurm.sbatch", "fsdd-1", "--preset", "fsdd")
    assert code == 0, output
    head, workers = machine.calls("srun ")
    assert "--nodes=1 --ntasks=1 --nodelist=n1 " in head
    assert "--nodes=2 --ntasks=2 --nodelist=n2,n3 " in workers
    port = 20000 + int(machine.env["SLURM_JOB_ID"]) % 10000
    starts = machine.calls("ray start")
    assert f"--head --port={port} --dashboard-host=127.0.0.1 --dashboard-port={port + 10000}" in starts[0]
    assert f"--address=n1:{port}" in starts[1]
    assert all("--num-cpus=16" in start for start in starts)
    (study,) = machine.calls("python studies")
    assert study == f"python studies/tau_sweep.py --name fsdd-1 --storage {machine.storage} --preset fsdd"
    assert machine.calls("ray ended")
    assert not machine.calls("scontrol requeue")
    assert not left_behind(machine)


def test_the_token_is_in_a_private_file_and_nowhere_else(machine: Machine) -> None:
    code, output = machine.run("slurm.sbatch", "fsdd-1")
    assert code == 0, output
    token = (machine.log / "token").read_text()
    assert len(token) == TOKEN_BYTES
    assert (machine.log / "mode").read_text().strip() == "600"
    assert token not in output
    assert token not in "\n".join(machine.calls())


def test_a_requeued_job_continues_the_study(machine: Machine) -> None:
    machine.run("slurm.sbatch", "fsdd-1")
    code, output = machine.run("slurm.sbatch", "fsdd-1", SLURM_RESTART_COUNT="1")
    assert code == 0, output
    first, second = machine.calls("python studies")
    assert "--resume" not in first
    assert second.endswith(" --resume")
    submitted = [
        call.split("--submission-id ")[1].split()[0]
        for call in machine.calls("ray job submit")
        if "--submission-id" in call
    ]
    job = machine.env["SLURM_JOB_ID"]
    assert submitted == [f"fsdd-1-{job}-0", f"fsdd-1-{job}-1"]  # Ray takes an id only once


def test_two_minutes_before_its_limit_a_job_ends_ray_and_goes_back_into_the_queue(machine: Machine) -> None:
    machine.say("long")
    process = machine.start("slurm.sbatch", "fsdd-1")
    machine.wait_for("studying")
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    calls = machine.calls()
    requeue = calls.index(f"scontrol requeue {machine.env['SLURM_JOB_ID']}")
    assert calls.count("ray ended") >= 1
    assert max(i for i, call in enumerate(calls) if call == "ray ended") < requeue
    assert "continues" in output
    assert not left_behind(machine)


def test_a_cancelled_job_ends_ray_and_does_not_come_back(machine: Machine) -> None:
    machine.say("long")
    process = machine.start("slurm.sbatch", "fsdd-1")
    machine.wait_for("studying")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert machine.calls("ray ended")
    assert not machine.calls("scontrol requeue")
    assert not left_behind(machine)


def test_a_failed_study_fails_the_job_and_does_not_come_back(machine: Machine) -> None:
    machine.say("fails")
    code, _ = machine.run("slurm.sbatch", "fsdd-1")
    assert code == 1
    assert not machine.calls("scontrol requeue")
    assert not left_behind(machine)


@pytest.mark.parametrize(
    ("fault", "message"),
    [("head-silent", "did not answer within 2 s"), ("head-dies", "ended before it answered")],
)
def test_a_head_that_does_not_come_up_fails_the_job(machine: Machine, fault: str, message: str) -> None:
    machine.say(fault)
    code, output = machine.run("slurm.sbatch", "fsdd-1", HEAD_TIMEOUT="2")
    assert code == 1
    assert message in output
    assert len(machine.calls("srun ")) == 1  # no worker waits for it
    assert not [call for call in machine.calls("ray job submit") if "run_study" in call]
    assert not left_behind(machine)


def test_ray_that_does_not_end_is_killed_in_time(machine: Machine) -> None:
    machine.say("long")
    stub = machine.root / "bin" / "bin" / "scancel"
    stub.write_text(NOTE)  # a signal that reaches nobody
    process = machine.start("slurm.sbatch", "fsdd-1", STOP_TIMEOUT="1")
    machine.wait_for("studying")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert machine.calls("scontrol requeue")


@pytest.mark.parametrize("args", [(), ("--preset", "fsdd")])
@pytest.mark.parametrize("script", ["slurm.sbatch", "single_machine.sh", "run_study.sh"])
def test_a_study_without_a_name_is_refused(machine: Machine, script: str, args: tuple[str, ...]) -> None:
    code, output = machine.run(script, *args)
    assert code == 2
    assert "usage" in output
    assert not machine.calls("srun")


@pytest.mark.parametrize("flags", [("--storage", "/x"), ("--preset", "fsdd", "--storage=/x"), ("--name=b",)])
@pytest.mark.parametrize("script", ["single_machine.sh", "run_study.sh"])
def test_a_flag_that_hides_the_study_from_its_resumption_is_refused(
    machine: Machine, script: str, flags: tuple[str, ...]
) -> None:
    code, output = machine.run(script, "fsdd-1", *flags)
    assert code == 2
    assert output == "leave out --storage and --name: set STORAGE, and give the name as the first argument\n"
    assert not machine.calls()


def test_a_job_from_elsewhere_than_the_checkout_is_refused(machine: Machine) -> None:
    code, output = machine.run("slurm.sbatch", "fsdd-1", SLURM_SUBMIT_DIR=str(machine.root))
    assert code == 2
    assert "not the root of the checkout" in output


# ---- one machine


def test_one_machine_starts_a_head_on_loopback_once_and_submits(machine: Machine) -> None:
    for _ in range(2):
        code, output = machine.run(
            "single_machine.sh", "fsdd-1", "--preset", "fsdd", DASHBOARD_PORT="8299", RAY_PORT="6499"
        )
        assert code == 0, output
    (start,) = machine.calls("ray start")
    assert "--dashboard-host=127.0.0.1 --dashboard-port=8299" in start
    first, second = machine.calls("python studies")
    assert first.endswith("--preset fsdd")
    assert second.endswith("--preset fsdd --resume")
    for word in ("watch", "ray job stop", "resume", "stop_head.sh", "http://127.0.0.1:8299"):
        assert word in output
    token = machine.root / "home" / ".config" / "catuvac" / "ray-token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text() not in output + "\n".join(machine.calls())


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel's list of sockets: Linux has it")
@pytest.mark.parametrize("name", ["RAY_PORT", "DASHBOARD_PORT"])
def test_one_machine_says_which_port_is_taken(machine: Machine, name: str) -> None:
    ports = {"RAY_PORT": "6499", "DASHBOARD_PORT": "8299"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[name] = str(taken.getsockname()[1])
        code, output = machine.run("single_machine.sh", "fsdd-1", **ports)
    assert code == 2
    assert output.startswith(f"port {ports[name]} is taken")
    assert len(output.splitlines()) == 1
    assert not machine.calls("ray start")


@pytest.mark.parametrize("planted", ["folder", "link"])
def test_one_machine_takes_no_temporary_folder_of_another_user(machine: Machine, planted: str) -> None:
    if os.getuid():
        pytest.skip("giving a folder to another user needs root")
    path, elsewhere = machine.nodes / f"catuvac-{os.getuid()}", machine.root / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    if planted == "folder":
        path.mkdir()
        os.chown(path, 65534, 65534)
    else:
        path.symlink_to(elsewhere)
    code, output = machine.run("single_machine.sh", "fsdd-1", DASHBOARD_PORT="8299", RAY_PORT="6499")
    assert code == 2
    message = "is not a folder that you own; set RAY_TMPDIR to one that is, with a short path"
    assert output.splitlines()[-1] == f"{path} {message}"
    assert not machine.calls("ray start")
    assert elsewhere.stat().st_mode & 0o777 == 0o755


def test_one_machine_does_not_show_its_token_to_another_users_server(machine: Machine) -> None:
    if os.getuid():
        pytest.skip("becoming another user needs root")
    become = "import os, socket, sys; os.setgid(65534); os.setuid(65534); s = socket.create_server(('127.0.0.1', 0)); "
    command = [sys.executable, "-c", become + "print(s.getsockname()[1], flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        port = other.stdout.readline().strip()
        code, output = machine.run("single_machine.sh", "fsdd-1", DASHBOARD_PORT=port)
        other.communicate()
    assert code == 2
    assert output == f"port {port} is used by another user; set DASHBOARD_PORT and RAY_PORT to free ones\n"
    assert not machine.calls("ray")


# ---- the parts


def test_a_token_is_made_once_and_never_shown(machine: Machine) -> None:
    path = machine.root / "new" / "token"
    _, said = machine.run("make_token.sh", str(path))
    made = path.read_text()
    assert said == f"{path}\n"
    assert len(made) == TOKEN_BYTES
    assert int(made, 16) > 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    machine.run("make_token.sh", str(path))
    assert path.read_text() == made
    machine.run("make_token.sh", str(path.with_name("other")))
    assert path.with_name("other").read_text() != made


def test_an_empty_token_is_refused(machine: Machine) -> None:
    path = machine.root / "token"
    path.touch(mode=0o600)
    code, output = machine.run("make_token.sh", str(path))
    assert code == 2
    assert output == f"{path} is empty, not a regular file, or not owned by you; remove it and run this again\n"


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_token_that_others_can_read_is_refused(machine: Machine, mode: int) -> None:
    path = machine.root / "token"
    path.write_text("x")
    path.chmod(mode)
    code, output = machine.run("make_token.sh", str(path))
    assert code == 2
    assert f"{path} can be read by others" in output


def test_a_study_in_an_object_store_is_continued_too(machine: Machine) -> None:
    """By a file:// address, which goes the same way through pyarrow."""
    stub = machine.root / "bin" / "bin" / "python"
    stub.write_text(stub.read_text().replace(NOTE, f'{NOTE}if [[ $1 == -c ]]; then exec {sys.executable} "$@"; fi\n'))
    uri = f"file://{machine.storage}"
    for _ in range(2):
        code, output = machine.run("run_study.sh", "fsdd-1", STORAGE=uri)
        assert code == 0, output
        (machine.storage / "fsdd-1").mkdir(exist_ok=True)
        (machine.storage / "fsdd-1" / "study.json").touch()
    first, second = machine.calls("python studies")
    assert "--resume" not in first
    assert second.endswith(f"--storage {uri} --resume")
