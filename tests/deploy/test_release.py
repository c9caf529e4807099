"""Wheel and sdist hold everything, and what is installed from them runs anywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from markdown_it import MarkdownIt

from demo.loop import Children
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.hooks import hook_settings, log_lines
from tests.support.ports import free
from tests.support.release import ROOT, Installed, build, clean_environment, unpack
from tests.support.waiting import wait_until
from zapwatch import __version__
from zapwatch.cli import COMMANDS

_SECRET = "not-a-real-secret-of-the-release"
_PACKAGES = ("zapwatch", "exporter", "reconnect_hook")
_SHARED = ("prometheus/rules", "alertmanager/templates", "grafana", "docs")
_SHARED_FILES = ("prometheus/prometheus.yml", "alertmanager/alertmanager.yml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("release")


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    """Build the sdist from the checkout, and the wheel from the sdist, as pip would."""
    checkout = unpack(build("sdist", ROOT, folder), folder / "unpacked")
    # Operators keep these beside what is shipped.
    (checkout / "alertmanager" / "hook-token").write_text(_SECRET)
    (checkout / ".env").write_text(_SECRET)
    return build("wheel", checkout, folder)


@pytest.fixture(scope="module")
def installed(wheel: Path, folder: Path) -> Installed:
    return Installed(wheel, folder / "installed")


def _files(below: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / below).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_holds_every_file_of_the_programs_and_of_their_configuration(wheel: Path) -> None:
    name = f"zapwatch-{__version__}"
    shared = {*_SHARED_FILES, *(file for below in _SHARED for file in _files(below))}
    with zipfile.ZipFile(wheel) as archive:
        held = {file for file in archive.namelist() if ".dist-info/" not in file}
        texts = [archive.read(file) for file in archive.namelist()]
    assert {f"{package}/py.typed" for package in _PACKAGES} <= held
    assert held == {
        *(file for below in _PACKAGES for file in _files(below)),
        *(f"{name}.data/data/share/zapwatch/{file}" for file in shared),
        f"{name}.data/data/share/zapwatch/zapwatch.env.example",
        f"{name}.data/data/share/zapwatch/gateways.example.yaml",
    }
    assert not [text for text in texts if _SECRET.encode() in text]


def test_every_command_and_the_console_script_run_what_was_installed_from_anywhere(
    installed: Installed, tmp_path: Path
) -> None:
    script = str(installed.folder / "bin" / "zapwatch")
    programs = ("exporter", "reconnect_hook", "reconnect_hook serve", "reconnect_hook check")
    usages = {f"python -m {one}": f"usage: python -m {one} " for one in programs}
    usages |= {f"{script} {one}".strip(): f"usage: zapwatch {one}" for one in ("", *COMMANDS)}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=clean_environment({}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    code = "import json, {0}; print(json.dumps([m.__file__ for m in ({0},)]))"
    for file in json.loads(run(installed.python, "-c", code.format(", ".join(_PACKAGES)))):
        assert file.startswith(str(installed.folder))
    version = f"zapwatch {__version__}\n"
    assert run(script, "--version") == version
    lines = [f"{one} {option}" for one in usages for option in ("--help", "--version")]
    ends = json.loads(run(installed.python, "-c", _RUN_EACH, *lines))
    for line, (code, said) in zip(lines, ends, strict=True):
        program, _, option = line.rpartition(" ")
        assert code == 0, line
        assert said.startswith(usages[program] if option == "--help" else version), line


# Each in a fork of a process that has imported most of what they import.
_RUN_EACH = """
import exporter.app, json, os, reconnect_hook.schema, runpy, sys
ends = []
for line in sys.argv[1:]:
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writes, 1)
        sys.argv = line.removeprefix("python -m ").split()
        run = runpy.run_path if line.startswith("/") else runpy.run_module
        run(sys.argv[0], run_name="__main__")
    os.close(writes)
    with open(reads) as file:
        said = file.read()
    ends.append((os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said))
print(json.dumps(ends))
"""


def _pins(lock: str) -> set[str]:
    return set(re.findall(r"^\S+==\S+", (ROOT / lock).read_text(), re.MULTILINE))


def test_an_installation_gets_what_the_tests_ran_on(wheel: Path) -> None:
    pins = _pins("requirements-run.lock")
    assert pins <= _pins("requirements.lock")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    needed = set(re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", text, re.MULTILINE))
    assert len(needed) > 5
    assert {name.lower() for name in needed} <= {pin.partition("==")[0] for pin in pins}


def test_the_bill_of_materials_names_all_that_is_installed() -> None:
    subprocess.run(["make", "--silent", "sbom"], cwd=ROOT, check=True, capture_output=True)
    bill = json.loads((ROOT / "build" / "zapwatch.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    named = {f"{one['name']}=={one['version']}" for one in bill["components"]}
    assert named == _pins("requirements-run.lock")
    assert bill["metadata"]["component"]["name"] == "zapwatch"


def test_the_documentation_becomes_a_site_without_a_dead_link() -> None:
    subprocess.run(["make", "--silent", "docs"], cwd=ROOT, check=True, capture_output=True)
    assert (ROOT / "site" / "search.json").is_file()
    markdown = MarkdownIt("commonmark").enable("table")
    for path in (ROOT / "docs").rglob("*.md"):
        page = path.relative_to(ROOT / "docs").with_suffix("")
        built = ROOT / "site" / (page.parent if page.name == "README" else page) / "index.html"
        language = "pt-BR" if page.is_relative_to("pt-BR") else "en"
        assert f'<html lang="{language}"' in built.read_text(), path
        article = built.read_text().partition("<article")[2].partition("</article>")[0]
        # Where these differ, an item of a list lacks the empty line before it.
        assert _parts(article) == _parts(markdown.render(path.read_text())), path


def _parts(html: str) -> list[int]:
    return [len(re.findall(f"<{tag}[ >]", html)) for tag in ("ol", "ul", "li", "pre", "tr")]


def test_the_crontab_line_for_a_shared_host_works(
    installed: Installed, tmp_path: Path, gateway: SimulatorServer
) -> None:
    texts = [(ROOT / "docs" / guide).read_text() for guide in ("install.md", "pt-BR/install.md")]
    found = [re.findall(r"^ +\*/15 \* \* \* \* (.*)$", text, re.MULTILINE) for text in texts]
    (line,) = found[0]
    assert found[1] == [line]
    (tmp_path / "zapwatch").symlink_to(installed.folder)
    (tmp_path / "zapwatch-data").mkdir()
    (tmp_path / "pixelhub").mkdir()
    settings = hook_settings(gateway.url, WPP_GATEWAY_SECRET=_SECRET, RECONNECT_VERIFY_SECONDS="30")
    env_file = tmp_path / "pixelhub" / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    Simulator(gateway.url).drop("Loja Centro")
    done = subprocess.run(
        ["sh", "-c", line],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Loja Centro" in done.stdout
    (logged,) = log_lines(tmp_path / "zapwatch-data")
    assert "outcome=reconnected" in logged


@pytest.fixture
def gateway() -> Iterator[SimulatorServer]:
    with SimulatorServer(_SECRET) as server:
        Simulator(server.url).put_channel("Loja Centro", reconnect_seconds=1.0)
        yield server


def test_the_main_loop_runs_from_the_wheel(
    installed: Installed, tmp_path: Path, gateway: SimulatorServer
) -> None:
    (tmp_path / "secret").write_text(_SECRET)
    (tmp_path / "token").write_text("not-a-real-token")
    settings = {
        **hook_settings(gateway.url, WPP_GATEWAY_SECRET="", HOOK_TOKEN=""),
        "WPP_GATEWAY_SECRET_FILE": "secret",
        "HOOK_TOKEN_FILE": "token",
        "RECONNECT_VERIFY_SECONDS": "30",
        "EXPORTER_LISTEN": str(free()),
        "HOOK_LISTEN": str(free()),
        "EXPORTER_POLL_SECONDS": "1",
    }
    children = Children(tmp_path)
    here = ["env", f"--chdir={tmp_path}"]
    # The demonstration is not in the wheel; the programs that it starts are.
    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    children.start("demo", [*here, *installed.command("demo")], clean_environment(settings))
    try:

        def printed(text: str) -> bool:
            children.check()
            return text in (tmp_path / "demo.log").read_text()

        wait_until(lambda: printed("watching"), "the loop to be ready")
        address = f"http://{settings['HOOK_LISTEN']}/docs/runbook/Watchdog"
        assert "<h1" in requests.get(address, timeout=30).text
        Simulator(gateway.url).drop("Loja Centro")
        wait_until(lambda: printed("outcome=reconnected"), "the repair to be printed")
    finally:
        children.stop()
    (line,) = log_lines(tmp_path)
    assert 'channel="Loja Centro" reason=disconnected action=getQr outcome=reconnected' in line
