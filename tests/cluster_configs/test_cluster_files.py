"""Every file of `cluster_configs/`, against the schema or linter of what reads it, and the rules of its README."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "cluster_configs"
TEXT = [p for p in sorted(CONFIGS.iterdir()) if p.is_file()]
FILES = [p for p in TEXT if p.suffix != ".md"]
SCRIPTS = [p for p in FILES if p.suffix in (".sh", ".sbatch")]
LAUNCHER = [CONFIGS / f"{name}.yaml" for name in ("on_premises", "aws", "gcp")]
CLOUDS = LAUNCHER[1:]
KUBERNETES = sorted(CONFIGS.glob("kuberay_*.yaml"))
MULTI_MACHINE = [
    *LAUNCHER,
    CONFIGS / "kuberay_raycluster.yaml",
    CONFIGS / "kuberay_rayjob.yaml",
    CONFIGS / "slurm.sbatch",
]


def tool(name: str) -> str:
    """The linter that the package of this name put beside the interpreter, activated or not."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def named(path: Path) -> str:
    return path.name


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def code(path: Path) -> str:
    """The file without its whole-line comments, and with continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ")


# ---- each file opens with the command that runs it


@pytest.mark.parametrize("path", FILES, ids=named)
def test_the_first_comment_is_the_command_that_runs_the_file(path: Path) -> None:
    comment = next(line for line in path.read_text().splitlines() if not line.startswith("#!"))
    if path.name == "Dockerfile.dockerignore":
        assert "docker build --file cluster_configs/Dockerfile" in comment
        return
    assert comment.startswith("# ")
    assert f"cluster_configs/{path.name}" in comment


@pytest.mark.parametrize("path", [p for p in MULTI_MACHINE if p.name != "kuberay_common.yaml"], ids=named)
def test_the_opening_says_where_data_features_and_results_live(path: Path) -> None:
    opening = re.split(r"^[^#]", path.read_text().split("\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    for word in ("Data are in", "features in", "results in"):
        assert word in opening.replace("\n# ", " ")


# ---- Ray's launcher


@pytest.mark.parametrize("path", LAUNCHER, ids=named)
def test_a_launcher_file_is_valid_for_the_installed_ray(path: Path) -> None:
    # Importing it costs a second, which the other tests need not wait for.
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    # What is not said would come from Ray's defaults, with a dashboard on all interfaces.
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        assert "0.0.0.0" not in command


@pytest.mark.parametrize("path", LAUNCHER, ids=named)
def test_both_start_commands_of_a_launcher_file_turn_the_token_on(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    for kind, command, flag in (
        ("head", "python ~/catuvac/start_head.py", "--port=6379"),
        ("worker", "ray start", "--address=$RAY_HEAD_IP:6379"),
    ):
        before, after = config[f"{kind}_start_ray_commands"][-1].split(command)
        assert "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.config/catuvac/ray-token" in before
        assert flag in shlex.split(after)
    assert config["file_mounts"]["~/catuvac/start_head.py"] == "cluster_configs/start_head.py"
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert config["file_mounts"]["~/.config/catuvac/ray-token"] == "~/.config/catuvac/ray-token"


@pytest.mark.parametrize("path", LAUNCHER, ids=named)
def test_the_commands_of_a_launcher_file_are_valid_shell(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    for key, commands in config.items():
        for command in commands if key.endswith("_commands") else ():
            subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("path", CLOUDS, ids=named)
def test_a_cloud_has_a_head_without_gpu_and_spot_workers_from_zero(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    types = config["available_node_types"]
    head, workers = (
        types[config["head_node_type"]],
        [t for name, t in types.items() if name != config["head_node_type"]],
    )
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    for worker in workers:
        assert worker["min_workers"] == 0
        assert worker["resources"]["GPU"] >= 1
        node = worker["node_config"]
        spot = (
            node.get("InstanceMarketOptions", {}).get("MarketType"),
            node.get("scheduling", {}).get("provisioningModel"),
        )
        assert spot in (("spot", None), (None, "SPOT"))
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False


def test_aws_never_falls_back_to_the_wide_defaults_of_ray() -> None:
    """Without a group Ray opens port 22 to everybody, and without a profile it makes a role that may do anything."""
    for node_type in yaml.safe_load((CONFIGS / "aws.yaml").read_text())["available_node_types"].values():
        node = node_type["node_config"]
        assert node["SecurityGroupIds"]
        assert node["IamInstanceProfile"]["Arn"].startswith("arn:aws:iam::")
        assert node["MetadataOptions"]["HttpTokens"] == "required"


def test_gcp_names_its_network_and_accounts() -> None:
    for node_type in yaml.safe_load((CONFIGS / "gcp.yaml").read_text())["available_node_types"].values():
        node = node_type["node_config"]
        assert all("default" not in interface["subnetwork"] for interface in node["networkInterfaces"])
        assert node["serviceAccounts"][0]["email"].startswith("catuvac-")
        assert node["tags"] == {"items": ["catuvac"]}


# ---- Kubernetes


def fields(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


STRING, BOOLEAN = {"type": "string", "minLength": 1}, {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}
STRINGS = {"type": "object", "additionalProperties": STRING}
ANY = {"type": "object"}  # a pod template, validated as a Pod
# The fields of KubeRay 1.6 that these files use; `kubectl apply` drops a field that it does not know without a word.
CLUSTER = fields(
    {
        "rayVersion": STRING,
        "authOptions": fields({"mode": {"const": "token"}, "secretName": STRING}),
        "enableInTreeAutoscaling": BOOLEAN,
        "autoscalerOptions": fields(
            {
                "version": {"const": "v2"},
                "idleTimeoutSeconds": COUNT,
                "securityContext": ANY,
                "volumeMounts": {"type": "array"},
            }
        ),
        "headGroupSpec": fields(
            {
                "serviceType": {"const": "ClusterIP"},
                "enableIngress": {"const": False},
                "rayStartParams": STRINGS,
                "template": ANY,
            }
        ),
        "workerGroupSpecs": {
            "type": "array",
            "minItems": 1,
            "items": fields(
                {
                    "groupName": STRING,
                    "replicas": COUNT,
                    "minReplicas": {"const": 0},
                    "maxReplicas": {"type": "integer", "minimum": 1},
                    "rayStartParams": STRINGS,
                    "template": ANY,
                }
            ),
        },
    }
)
JOB = fields(
    {
        "entrypoint": STRING,
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        "backoffLimit": COUNT,
        "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
        "shutdownAfterJobFinishes": BOOLEAN,
        "ttlSecondsAfterFinished": COUNT,
        "submitterPodTemplate": ANY,
        "rayClusterSpec": CLUSTER,
    }
)
RAY_KINDS = {"RayCluster": CLUSTER, "RayJob": JOB}


def pods(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pod templates of a RayCluster's or a RayJob's spec."""
    cluster = spec.get("rayClusterSpec", spec)
    if "submitterPodTemplate" in spec:
        yield spec["submitterPodTemplate"]
    yield cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield group["template"]


@pytest.mark.parametrize("path", KUBERNETES, ids=named)
def test_kubernetes_objects_are_valid(path: Path) -> None:
    for document in documents(path):
        if document["kind"] in RAY_KINDS:
            whole = fields(
                {
                    "apiVersion": {"const": "ray.io/v1"},
                    "kind": STRING,
                    "metadata": fields({"name": STRING}),
                    "spec": RAY_KINDS[document["kind"]],
                }
            )
            jsonschema.validate(document, whole)
            for template in pods(document["spec"]):
                pod = {"apiVersion": "v1", "kind": "Pod"} | template
                kubernetes_validate.validate(pod, "1.30", strict=True)
        else:
            kubernetes_validate.validate(document, "1.30", strict=True)


def test_the_validation_notices_a_misspelt_field() -> None:
    document = documents(CONFIGS / "kuberay_raycluster.yaml")[0]
    pod = {"apiVersion": "v1", "kind": "Pod"} | document["spec"]["headGroupSpec"]["template"]
    pod["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, "1.30", strict=True)
    document["spec"]["authOption"] = document["spec"].pop("authOptions")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document["spec"], CLUSTER)


CLOSED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("name", ["kuberay_raycluster.yaml", "kuberay_rayjob.yaml"])
def test_pods_have_no_more_rights_than_they_need(name: str) -> None:
    for template in pods(documents(CONFIGS / name)[0]["spec"]):
        spec = template["spec"]
        assert template["metadata"]["labels"] == {"study": "catuvac"}  # what the network policy selects
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] == 1000  # the Dockerfile's
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all("hostPath" not in volume for volume in spec.get("volumes", []))
        for container in spec["containers"]:
            assert container["securityContext"] == CLOSED
            assert container["resources"]["limits"]["memory"]
            # What is written goes into volumes that exist.
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) <= {volume["name"] for volume in spec["volumes"]}
            assert mounts["/tmp"] == "scratch"
            assert {"name": "HOME", "value": "/tmp"} in container["env"]
    document = documents(CONFIGS / name)[0]["spec"]
    autoscaler = document.get("rayClusterSpec", document)["autoscalerOptions"]
    assert autoscaler["securityContext"] == CLOSED
    assert autoscaler["volumeMounts"] == [{"name": "scratch", "mountPath": "/tmp"}]


@pytest.mark.parametrize("name", ["kuberay_raycluster.yaml", "kuberay_rayjob.yaml"])
def test_the_kubernetes_head_has_no_gpu_and_runs_no_trial(name: str) -> None:
    document = documents(CONFIGS / name)[0]
    cluster = document["spec"].get("rayClusterSpec", document["spec"])
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]
    for group in cluster["workerGroupSpecs"]:
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    pinned = (CONFIGS / "requirements.txt").read_text()
    assert f"ray[tune,default]=={cluster['rayVersion']}\n" in pinned


STUDY_PODS = {"podSelector": {"matchLabels": {"study": "catuvac"}}}


def policies() -> dict[str, dict[str, Any]]:
    """The specs of the network policies, by name."""
    found = documents(CONFIGS / "kuberay_common.yaml")
    return {d["metadata"]["name"]: d["spec"] for d in found if d["kind"] == "NetworkPolicy"}


def test_the_network_policy_lets_in_the_study_and_the_operator_only() -> None:
    policy = policies()["catuvac"]
    assert policy["podSelector"] == STUDY_PODS["podSelector"]
    among, operator = policy["ingress"]
    assert among == {"from": [STUDY_PODS]}
    # Whoever may make pods in some other namespace could give them the operator's label.
    assert operator["from"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
        }
    ]
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]


def test_the_network_policies_let_out_to_the_study_and_what_it_cannot_do_without() -> None:
    everybody, head = policies()["catuvac"], policies()["catuvac-head"]
    assert set(everybody["policyTypes"]) == {"Ingress", "Egress"}
    among, names = everybody["egress"]
    assert among == {"to": [STUDY_PODS]}
    assert {port["port"] for port in names["ports"]} == {53}
    assert names["to"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    assert head["podSelector"]["matchLabels"] == {"study": "catuvac", "ray.io/node-type": "head"}
    [api] = head["egress"]
    [address] = api["to"]
    assert address["ipBlock"]["cidr"].endswith("/32")  # one address
    assert len(api["ports"]) == 1


# ---- shell and container


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix in (".sh", ".sbatch", ".yaml")], ids=named)
def test_no_head_serves_ray_client(path: Path) -> None:
    """`ray start --head` would, to the network; KubeRay starts its heads itself, behind a network policy."""
    assert not re.search(r"ray start[^\n]*--head\b", code(path))


def test_the_notices_hold_the_licences_of_what_is_installed() -> None:
    done = subprocess.run([sys.executable, CONFIGS / "notices.py"], capture_output=True, text=True, check=True)
    _, *parts = re.split(r"^={100}\n(\S+) \S+\n.*\n={100}\n", done.stdout, flags=re.MULTILINE)
    texts = dict(zip(parts[::2], parts[1::2], strict=True))
    lesser = "GNU LESSER GENERAL PUBLIC LICENSE"  # soundfile's is that of libsndfile, which it brings
    for name, text in (("soxr", lesser), ("soundfile", lesser), ("torch", "Facebook"), ("numpy", "NumPy Developers")):
        assert text in texts[name]
    assert "notices.py > /opt/catuvac/THIRD_PARTY_NOTICES.txt" in code(CONFIGS / "Dockerfile")


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_scripts_pass_bash_and_shellcheck(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    subprocess.run([tool("shellcheck"), "--shell=bash", path], check=True)
    assert "set -euo pipefail" in path.read_text()


def test_the_dockerfile_passes_hadolint() -> None:
    subprocess.run([tool("hadolint"), "--failure-threshold", "style", CONFIGS / "Dockerfile"], check=True)


def test_the_image_is_pinned_and_does_not_run_as_root() -> None:
    steps = re.findall(r"^([A-Z]+) (.*)$", code(CONFIGS / "Dockerfile"), flags=re.MULTILINE)
    assert ("ARG", "PYTHON=3.11.14") in steps
    assert ("FROM", "python:${PYTHON}-slim-bookworm") in steps
    last_run = max(i for i, (verb, _) in enumerate(steps) if verb == "RUN")
    users = [(i, value) for i, (verb, value) in enumerate(steps) if verb == "USER"]
    assert users == [(users[0][0], "1000:1000")]
    assert users[0][0] > last_run
    for verb, value in steps:
        assert verb != "ADD"
        if verb == "RUN":
            assert not re.search(r"curl|\| *(ba)?sh|sudo|chmod 777", value)
            assert "pip install" not in value or "--no-cache-dir" in value


def test_the_image_holds_what_is_named_and_all_that_its_build_needs() -> None:
    lines = (CONFIGS / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert all((ROOT / path).exists() for path in kept)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"], "catuvac", "analysis", "studies"}
    assert needed <= set(kept)
    assert not any(re.search(r"results|runs|data|\.git|token", path) for path in kept if path != "catuvac")


def test_requirements_pin_every_dependency_within_its_range() -> None:
    pinned = {}
    for line in (CONFIGS / "requirements.txt").read_text().splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            pinned[requirement.name.lower()] = requirement
    wanted = [Requirement(d) for d in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
    assert {requirement.name.lower() for requirement in wanted} == set(pinned)
    for requirement in wanted:
        found = pinned[requirement.name.lower()]
        (pin,) = found.specifier
        assert requirement.specifier.contains(pin.version), f"{found} is outside {requirement}"
        assert requirement.extras == found.extras


# ---- security, over everything


FORBIDDEN = {
    "authentication turned off": r"RAY_AUTH_MODE *[?:]?= *[\"']?disabled",
    "a wildcard network": r"0\.0\.0\.0/0|::/0",
    "a privileged container": r"privileged: *true|--privileged",
    "a dashboard on all interfaces": r"dashboard-host[=: ]+\"?(0\.0\.0\.0|::)",
    "a token in place of its path": r"RAY_AUTH_TOKEN *[=:]|--from-literal|\b[0-9a-f]{40,}\b",
    "a key": r"AKIA[0-9A-Z]{12}|aws_secret_access_key|BEGIN [A-Z ]*PRIVATE KEY",
    "a public address for the head": r"type: *(LoadBalancer|NodePort)|hostPort",
    "a script from the network": r"(curl|wget)[^\n]*\| *(ba)?sh",
    "pickled weights": r"weights_only *= *False|pickle\.load",
}
# Documents and what they run, beside the files of this folder.
COMMANDS = [ROOT / "Makefile", ROOT / "README.md", ROOT / "studies" / "README.md", CONFIGS / "monitoring" / "README.md"]
# KubeRay's Service and operator reach the dashboard from other addresses than the pod's loopback.
IN_CLUSTER = {"kuberay_raycluster.yaml", "kuberay_rayjob.yaml"}


@pytest.mark.parametrize("rule", FORBIDDEN, ids=lambda rule: rule.replace(" ", "-"))
@pytest.mark.parametrize("path", TEXT, ids=named)
def test_no_file_breaks_a_security_rule(path: Path, rule: str) -> None:
    text = path.read_text() if path.suffix != ".md" else "\n".join(blocks(path))
    if rule == "a dashboard on all interfaces" and path.name in IN_CLUSTER:
        assert text.count('dashboard-host: "0.0.0.0"') == 1
        text = text.replace('dashboard-host: "0.0.0.0"', "")
    assert not re.search(FORBIDDEN[rule], text)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_documented_command_turns_authentication_off_or_starts_ray_without_it(path: Path) -> None:
    text = path.read_text()
    assert not re.search(FORBIDDEN["authentication turned off"], text)
    assert not re.search(r"^\s*(.*\|\| )?ray start", text, flags=re.MULTILINE)  # the scripts do, with a token


@pytest.mark.parametrize("path", [*MULTI_MACHINE, CONFIGS / "single_machine.sh"], ids=named)
def test_the_token_is_on(path: Path) -> None:
    if path in KUBERNETES:
        document = documents(path)[0]["spec"]
        options = document.get("rayClusterSpec", document)["authOptions"]
        assert options == {"mode": "token", "secretName": "catuvac-ray-token"}
    else:
        assert re.search(r"export RAY_AUTH_MODE=token\b", code(path))
        assert "RAY_AUTH_TOKEN_PATH=" in code(path)


def test_no_token_or_secret_is_committed() -> None:
    listed = tracked()
    assert not [name for name in listed if re.search(r"ray-token|auth_token$|\.pem$|(^|/)\.env", name)]
    for path in KUBERNETES:
        assert all(document["kind"] != "Secret" for document in documents(path))


# ---- commands in the README and in the files


def blocks(path: Path) -> list[str]:
    """The shell commands of a Markdown file."""
    return re.findall(r"^```sh\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def studies(text: str) -> Iterator[list[str]]:
    """The flags after each call of tau_sweep.py or of a script that hands its flags on."""
    joined = re.sub(r" *\\?\n#? +(?=--)", " ", text)
    for match in re.finditer(r"(?:tau_sweep\.py|(?:run_study|single_machine)\.sh|slurm\.sbatch) +(.*)", joined):
        yield re.findall(r"(?<!\S)--[a-z-]+", match.group(1).split("#")[0])


@pytest.fixture(scope="module")
def flags() -> set[str]:
    """What `studies/tau_sweep.py` understands."""
    command = [sys.executable, "studies/tau_sweep.py", "--help"]
    shown = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"}
    )
    return set(re.findall(r"(?<!\S)--[a-z-]+", shown.stdout))


@pytest.mark.parametrize("path", TEXT, ids=named)
def test_every_flag_of_a_study_exists(path: Path, flags: set[str]) -> None:
    for used in studies(path.read_text()):
        assert set(used) <= flags


def test_the_flags_are_found_where_they_are() -> None:
    """The test above would pass on nothing."""
    (opening, *_) = studies((CONFIGS / "slurm.sbatch").read_text())
    assert opening == ["--preset", "--data-root", "--gpus-per-trial"]
    (entrypoint,) = studies((CONFIGS / "kuberay_rayjob.yaml").read_text())
    assert entrypoint == ["--preset", "--data-root", "--trials", "--gpus-per-trial", "--autoscaling"]
    readme = list(studies((CONFIGS / "README.md").read_text()))
    assert sum("--storage" in used for used in readme) == 3  # on premises, S3, GCS


def test_the_readme_names_every_file_and_its_commands_are_valid_shell() -> None:
    readme = CONFIGS / "README.md"
    text = readme.read_text()
    for path in FILES:
        assert path.name in text
    for block in blocks(readme):
        subprocess.run(["bash", "-n", "-c", block], check=True)
    for name in re.findall(r"cluster_configs/([\w.]+)", text):
        assert (CONFIGS / name).exists()


# ---- what `ray job submit --working-dir .` uploads


def tracked() -> list[str]:
    """The files that git knows; skips outside a clone."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_the_upload_of_a_job_is_small_and_leaves_out_what_is_not_code(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    checkout = tmp_path / "checkout"
    for name in tracked():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    for name in (".venv/lib/torch.so", "results/a/trials.parquet", "runs/a/weights.pt", "catuvac/__pycache__/a.pyc"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(b"x")
    target = tmp_path / "package.zip"
    create_package(str(checkout), target, include_gitignore=True)
    names = zipfile.ZipFile(target).namelist()
    assert "studies/tau_sweep.py" in names
    assert not [name for name in names if re.match(r"\.venv|results|runs|\.git/", name) or name.endswith(".pyc")]
    assert target.stat().st_size < 20 * 2**20, "Ray's limit is 100 MiB"
