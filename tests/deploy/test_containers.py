"""The container files, without Docker: systemd runs what compose.yaml says, as far as a repair."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.simulator.server import SimulatorServer
from tests.support.certificates import self_signed
from tests.support.guides import CHECKOUT_PACKAGES, GATEWAY, SECRET, blocks, simulate, start_gateway
from tests.support.machine import CHECKOUT, Machine
from tests.support.release import ROOT, build
from zapwatch import __version__
from zapwatch.config.settings import BY_NAME
from zapwatch.gateways.registry import ADAPTERS

_FOLDER = ROOT / "deploy" / "container"
_COMPOSE = yaml.safe_load((_FOLDER / "compose.yaml").read_text())
_BRIDGE = yaml.safe_load((_FOLDER / "compose.bridge.yaml").read_text())
_SERVICES: dict[str, dict[str, Any]] = _COMPOSE["services"]
_OURS = ("exporter", "hook")
# What the images begin with, and the user that they run as.
_DEBIANS = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}
_USERS = {"exporter": "10861", "hook": "10861", "prometheus": "65534", "alertmanager": "65534"}
_SETTINGS = f"{CHECKOUT}/deploy/container/settings/zapwatch.env"
# The exporter at all addresses, for a gateway in a container of its own.
_ANSWERS = {
    "WPP_GATEWAY_BASE_URL": GATEWAY,
    "WPP_GATEWAY_SECRET": SECRET,
    "MESSAGE_SOURCE": "none",
    "EXPORTER_LISTEN": "0.0.0.0:9861",
}


def _instructions(target: str | None = None) -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions: all of them, or those of a target and its bases."""
    text = (_FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    split = [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]
    if target is None:
        return split
    begin = next(n for n, (k, v) in enumerate(split) if k == "FROM" and v.endswith(f" AS {target}"))
    end = next((n for n in range(begin + 1, len(split)) if split[n][0] == "FROM"), len(split))
    base = split[begin][1].partition(" ")[0]
    return (_instructions(base) if ":" not in base else []) + split[begin + 1 : end]


def _environment(target: str) -> dict[str, str]:
    pairs = " ".join(rest for name, rest in _instructions(target) if name == "ENV")
    return dict(pair.split("=", 1) for pair in pairs.split())


def _command(target: str, instruction: str) -> list[str]:
    rest = next(rest for name, rest in _instructions(target) if name == instruction)
    command: list[str] = json.loads(rest[rest.index("[") :])
    return command


def _health(name: str, settings: str) -> list[str]:
    """Return the arguments of a health check's Python, for a settings' file of this machine."""
    _, _, *arguments = _SERVICES[name]["healthcheck"]["test"]
    return [text.replace("/etc/zapwatch/zapwatch.env", settings) for text in arguments]


def _mounts(service: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield what is mounted, where to, and whether it is a volume that may be written."""
    for mount in service.get("volumes", []):
        source, target, *mode = mount.split(":")
        is_init = service is _SERVICES["init"]
        assert mode == ["ro"] or (not mode and (source in _COMPOSE["volumes"] or is_init)), mount
        yield source, target, not mode
    for secret in service.get("secrets", []):
        name = secret if isinstance(secret, str) else secret["source"]
        target = f"/run/secrets/{name}" if isinstance(secret, str) else secret["target"]
        yield _COMPOSE["secrets"][name]["file"], target, False


def _merged(one: Any, other: Any) -> Any:
    """Return what Compose makes of two files: mappings are merged, lists joined."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {key: _merged(one[key], other[key]) for key in one.keys() & other.keys()}
        return {**one, **other, **both}
    return one + other if isinstance(one, list) else other


def test_compose_follows_its_specification() -> None:
    from compose_spec import PyCompose  # here: each worker imports this file

    assert PyCompose.from_json(json.dumps(_COMPOSE)).service_names() == list(_SERVICES)
    # Docker's own word for an address, which the library does not know.
    both = json.dumps(_merged(_COMPOSE, _BRIDGE)).replace(":host-gateway", ":192.0.2.1")
    assert set(PyCompose.from_json(both).service_names()) == {*_SERVICES, "network"}
    with pytest.raises(ValueError, match="restrat"):
        PyCompose.from_json(json.dumps({"services": {"hook": {"image": "x", "restrat": "no"}}}))


def test_all_that_is_mounted_is_declared_or_stands_in_the_checkout() -> None:
    written = {
        "./settings",
        "./settings/alertmanager",
        *(secret["file"] for secret in _COMPOSE["secrets"].values()),
    }
    for name, service in _SERVICES.items():
        for source, _, writable in _mounts(service):
            there = (_FOLDER / source).exists() or source in {*written, *_COMPOSE["volumes"]}
            assert writable or there, (name, source)


def test_nothing_listens_but_on_loopback_and_nothing_has_rights() -> None:
    for name, service in _SERVICES.items():
        assert service["network_mode"] == "host"
        assert "ports" not in service
        assert service["cap_drop"] == ["ALL"]
        assert ("cap_add" in service) == (name == "init")
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["mem_limit"]
        said = " ".join([*service.get("command", []), *map(str, service.get("environment", []))])
        if name in _DEBIANS:
            assert "--web.listen-address=127.0.0.1:" in said
    # The settings' file says where ours listen, and what it does not say is the default.
    for setting in ("EXPORTER_LISTEN", "HOOK_LISTEN"):
        assert str(BY_NAME[setting].default).startswith("127.0.0.1:")
        assert setting not in {**_environment("exporter"), **_environment("hook")}
    assert _SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_the_network_of_their_own_is_reached_on_loopback_only() -> None:
    services = _merged(_COMPOSE, _BRIDGE)["services"]
    network = services.pop("network")
    shared = ("cap_drop", "security_opt", "read_only", "restart")
    assert {key: network[key] for key in shared} == {key: _SERVICES["hook"][key] for key in shared}
    assert network["build"] == _SERVICES["exporter"]["build"]
    assert network["image"] == _SERVICES["exporter"]["image"]
    published = {port.rpartition(":")[2] for port in network["ports"]}
    assert all(port.startswith("127.0.0.1:") for port in network["ports"])
    assert published == {"9861", "9862", _SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_PORT"]}
    # A gateway on the machine has its usual port already.
    assert not published & {str(adapter.usual_port) for adapter in ADAPTERS.values()}
    for name, service in services.items():
        assert service["network_mode"] == "service:network"
        listens = "0.0.0.0" in str(service.get("environment"))
        assert listens == (name in {*_OURS, "grafana", "init"})


def test_every_version_is_pinned() -> None:
    images = [rest.split()[0] for name, rest in _instructions() if name == "FROM"]
    for image in [*(i for i in images if i != "base"), *(s["image"] for s in _SERVICES.values())]:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w-]+)?", image), image
    for name in _OURS:
        assert _SERVICES[name]["image"] == f"zapwatch-{name}:{__version__}"
        assert _SERVICES[name]["build"]["target"] == name


def test_compose_grants_a_service_every_secret_that_it_names() -> None:
    for service in _SERVICES.values():
        mounted = {target for _, target, _ in _mounts(service)}
        named = {v for k, v in service.get("environment", {}).items() if k.endswith("_FILE")}
        assert named <= mounted


def test_the_image_is_built_from_what_is_copied_and_from_no_secret(tmp_path: Path) -> None:
    """Copy what the Dockerfile copies, of what .dockerignore lets through, and build the wheel."""
    listed = (_FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    let_through = [line.removeprefix("!") for line in listed if line.startswith("!")]
    assert listed[1] == "*"
    copies = [rest.split() for name, rest in _instructions("build") if name == "COPY"]
    copied = {source for *sources, _ in copies for source in sources}
    assert {path.split("/")[0] for path in let_through} == copied
    for path in let_through:
        target = tmp_path / "source" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / path).is_dir() else shutil.copy)(ROOT / path, target)
    names = []
    for number, source in enumerate((ROOT, tmp_path / "source")):
        with zipfile.ZipFile(build("wheel", source, tmp_path / str(number))) as archive:
            names.append(sorted(archive.namelist()))
    assert names[0] == names[1]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine"), ROOT) as made:
        made.run(CHECKOUT_PACKAGES)
        made.run("/opt/zapwatch/bin/python -m hatchling build --target wheel --directory /wheel")
        made.run("/opt/zapwatch/bin/python -m pip install -q --no-deps --no-index /wheel/*.whl")
        made.run("groupadd --gid 10861 zapwatch; useradd --uid 10861 --gid 10861 zapwatch")
        prepare, _bridge = blocks("containers.md")
        made.run(prepare)
        start_gateway(made, SECRET, "Loja Centro")
        _start(made, "init", "--yes", *(f"--set={key}={text}" for key, text in _ANSWERS.items()))
        yield made


def _start(machine: Machine, name: str, *arguments: str) -> str:
    """Let systemd run a service in the way that compose.yaml wants; return the output of init."""
    service = _SERVICES[name]
    user = {**_USERS, "init": "root"}[name]
    begin = [text.replace("$$", "$") for text in service.get("entrypoint", [])]
    properties = [
        f"User={user}",
        f"Group={user}",
        f"SupplementaryGroups={' '.join(service.get('group_add', []))}",
        f"MemoryMax={service['mem_limit'].upper()}",
        f"TasksMax={service['pids_limit']}",
        f"CapabilityBoundingSet={' '.join(f'CAP_{one}' for one in service.get('cap_add', []))}",
        "NoNewPrivileges=yes",
        "ReadOnlyPaths=/",
        "InaccessiblePaths=/usr/bin/systemctl",  # the image has none
    ]
    for source, target, writable in _mounts(service):
        path = os.path.normpath(f"{CHECKOUT}/deploy/container/{source}")
        if source in _COMPOSE["volumes"]:
            # Its readers have the user of its writer.
            path = f"/srv/volumes/{source}"
            machine.run(f"install -d -o {user} -g {user} {path}")
        if writable:
            properties += [f"BindPaths={path}:{target}", f"ReadWritePaths={target}"]
        else:
            properties.append(f"BindReadOnlyPaths={path}:{target}")
    environment = dict(_environment(name)) if name in _OURS else {}
    environment |= service.get("environment", {})
    environment["PATH"] = "/opt/zapwatch/bin:/usr/bin:/bin"
    command = [
        *("systemd-run", "--quiet", f"--unit=container-{name}"),
        *(["--wait", "--pipe"] if begin else []),
        *(f"--property={one}" for one in properties),
        *(f"--setenv={key}={value}" for key, value in environment.items()),
        "env",
        *([_DEBIANS[name]] if name in _DEBIANS else []),
        *(begin or service["command"]),
        *arguments,
    ]
    return machine.run(shlex.join(command)).stdout


def test_what_init_writes_is_for_the_containers_and_the_folders_owner_alone(
    machine: Machine,
) -> None:
    assert "docker compose up --detach --build --wait" in _start(machine, "init", "--yes")
    written = machine.run(
        "cd deploy/container/settings; find . -type f -printf '%m %u:%g %P\\n' | sort"
    )
    files = (
        "alertmanager/address.tmpl",
        "alertmanager/alertmanager.yml",
        "alertmanager/hook-token",
    )
    assert written.stdout.splitlines() == [
        f"640 root:zapwatch {name}" for name in (*files, "zapwatch.env")
    ]


def test_the_services_of_compose_repair_a_drop(machine: Machine) -> None:
    for name in _USERS:
        _start(machine, name)
    for name in _OURS:
        environment = shlex.join(f"{k}={v}" for k, v in _environment(name).items() if k != "PATH")
        health = shlex.join(["/opt/zapwatch/bin/python", *_health(name, _SETTINGS)])
        machine.wait_for(f"env {environment} {health}", f"the health check of {name}")
        assert _command(name, "CMD")[:3] == _SERVICES[name]["command"][:3]
    machine.wait_for("curl --silent --fail http://127.0.0.1:9090/-/ready", "Prometheus")
    simulate(machine, "Loja Centro", "drop")
    log = "/srv/volumes/hook-log/healthcheck-sessions.log"
    assert "outcome=reconnected" in machine.wait_for(f"grep Loja {log}", "the repair")
    assert machine.run("ls /srv/volumes/hook-state").stdout.startswith("reconnect-hook.sqlite3")
    machine.run("curl --silent --fail http://127.0.0.2:9861/-/healthy")
    units = " ".join(f"container-{name}" for name in _USERS)
    assert machine.run(f"systemctl is-active {units}").stdout == "active\n" * 4


def _error(folder: Path, name: str, **environment: str) -> str:
    settings = folder / "zapwatch.env"
    shutil.copy(ROOT / ".env.example", settings)
    done = subprocess.run(
        [sys.executable, *_health(name, str(settings))],
        env={**environment, "WPP_GATEWAY_SECRET": SECRET},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize("name", _OURS)
def test_a_health_check_fails_where_nothing_answers(tmp_path: Path, name: str) -> None:
    listen = {f"{name.upper()}_LISTEN": "127.0.0.1:1"}
    assert "Connection refused" in _error(tmp_path, name, **listen)


@pytest.mark.parametrize("name", _OURS)
def test_a_health_check_speaks_tls_where_the_programs_do(tmp_path: Path, name: str) -> None:
    certificate, key = self_signed(tmp_path)
    web = tmp_path / "web.yml"
    web.write_text(f"tls_server_config: {{cert_file: {certificate}, key_file: {key}}}\n")
    with SimulatorServer(SECRET, tls=(certificate, key)) as server:
        listen = {f"{name.upper()}_LISTEN": f"0.0.0.0:{server.url.rpartition(':')[2]}"}
        said = _error(tmp_path, name, WEB_CONFIG_FILE=str(web), **listen)
    assert "HTTP 404" in said, "the server has no such page"
