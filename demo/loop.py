"""The whole loop on this machine: exporter, hook, Prometheus, Alertmanager, and their processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import requests

from demo.configuration import ALERTMANAGER, RULES, Addresses, write_alertmanager, write_prometheus

_STOP_SECONDS = 8.0
_LAST_LINES = 8


class ChildError(Exception):
    """A child ended by itself. ``str()`` contains its last lines; ``code`` is its exit code."""

    def __init__(self, name: str, code: int, last_lines: str) -> None:
        super().__init__(f"{name} ended with exit code {code}:\n{last_lines}")
        self.code = code


class Children:
    """Processes of one demonstration; each writes its output to its own file in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str]) -> None:
        """Start a child, which also ends when this process is killed (with setpriv)."""
        output = self._folder / f"{name}.log"
        setpriv = shutil.which("setpriv")
        prefix = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        with output.open("wb") as file:
            self._children[name] = subprocess.Popen(
                [*prefix, *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches only the parent, which then stops its children.
                start_new_session=True,
            )

    def pid(self, name: str) -> int:
        """Return the pid of the child with that name; raise KeyError."""
        return self._children[name].pid

    def check(self) -> None:
        """Raise ChildError if a child has ended."""
        for name, child in self._children.items():
            code = child.poll()
            if code is not None:
                raise ChildError(name, code, self.last_lines(name))

    def last_lines(self, name: str) -> str:
        """Return the last 8 lines of a child's output."""
        text = (self._folder / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-_LAST_LINES:])

    def kill(self, name: str) -> None:
        """Send SIGKILL to a child, as a crash would, and stop watching it."""
        child = self._children.pop(name)
        child.kill()
        child.wait()

    def stop(self) -> None:
        """Stop all children, the last one started first; SIGKILL after 8 s."""
        stopping = list(self._children.values())[::-1]
        for child in stopping:
            child.terminate()
        until = time.monotonic() + _STOP_SECONDS
        for child in stopping:
            try:
                child.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()


_READY_SECONDS = 60.0
_LOOK_SECONDS = 0.2

PROGRAMS = ("exporter", "reconnect_hook", "alertmanager", "prometheus")
"""The programs of a loop, in start order."""


class MissingProgramError(Exception):
    """Prometheus or Alertmanager is not installed. ``str()`` contains the remedy."""


class Loop:
    """Runs the four programs with the repository's own configuration until stopped."""

    def __init__(
        self,
        folder: Path,
        at: Addresses,
        env: Mapping[str, str],
        token: str,
        env_file: str | None = None,
        *,
        rules: Path = RULES,
        alertmanager: Path = ALERTMANAGER,
    ) -> None:
        """Take the settings from ``env`` and the file; data and output go into ``folder``.

        ``alertmanager`` is a folder like the shipped one, which is copied with this loop's
        addresses, or the operator's own file, which is used unchanged.
        """
        self.at = at
        self.folder = folder.resolve()
        self.children = Children(self.folder)
        self._token = token
        self._rules = rules
        self._alertmanager = alertmanager
        self.prometheus_options: Sequence[str] = ()
        self._options = [] if env_file is None else ["--env-file", env_file]
        self._env = {
            **env,
            "EXPORTER_LISTEN": str(at.exporter),
            "HOOK_LISTEN": str(at.hook),
            "HOOK_TOKEN": token,
            "HOOK_TOKEN_FILE": "",  # already read
            "PROMETHEUS_URL": f"http://{at.prometheus}",
            "ALERTMANAGER_URL": f"http://{at.alertmanager}",
        }

    def start(self) -> None:
        """Start all programs; raise MissingProgramError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        commands = {program: self._command(program) for program in PROGRAMS}
        for program, command in commands.items():
            self.children.start(program, command, self._env)

    def start_one(self, program: str) -> None:
        """Start one of the PROGRAMS alone, such as after its end."""
        self.children.start(program, self._command(program), self._env)

    def _command(self, program: str) -> list[str]:
        if program == "exporter":
            return [sys.executable, "-m", "exporter", *self._options]
        if program == "reconnect_hook":
            return [sys.executable, "-m", "reconnect_hook", *self._options, "serve"]
        if program == "alertmanager":
            config = self._alertmanager
            if config.is_dir():
                config = write_alertmanager(self.folder, self.at, config, self._token)
            return [
                find_program("prometheus-alertmanager", "alertmanager"),
                f"--config.file={config}",
                f"--storage.path={self.folder / 'alertmanager'}",
                f"--web.listen-address={self.at.alertmanager}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ]
        config = write_prometheus(self.folder, self.at, self._rules)
        return [
            find_program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'prometheus'}",
            "--storage.tsdb.retention.time=31d",  # the page's shares of 30 days
            f"--web.listen-address={self.at.prometheus}",
            "--log.level=warn",
            *self.prometheus_options,
        ]

    def wait_until_ready(self) -> None:
        """Wait until all answer; raise ChildError if one ends, TimeoutError after 60 s.

        The exporter counts as ready when it runs: its first poll of the gateway may take 90 s.
        """
        waiting = [
            f"http://{self.at.hook}/-/ready",
            f"http://{self.at.exporter}/-/healthy",
            f"http://{self.at.alertmanager}/-/ready",
            f"http://{self.at.prometheus}/-/ready",
        ]
        until = time.monotonic() + _READY_SECONDS
        while waiting := [url for url in waiting if not answers(url)]:
            self.children.check()
            if time.monotonic() > until:
                raise TimeoutError(f"no answer from {waiting[0]} in {_READY_SECONDS:g} s")
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """Stop all started programs."""
        self.children.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def get(url: str) -> requests.Response:
    """Get a page of this machine, ignoring the environment's proxies."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=5)


def answers(url: str) -> bool:
    """Whether a page of this machine can be read."""
    try:
        return get(url).ok
    except requests.RequestException:
        return False


def find_program(*names: str) -> str:
    """Return the path of the first installed program; raise MissingProgramError."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise MissingProgramError(
        f"{names[0]} is not installed: run `make run`, or install it (apt-get install {names[0]})"
    )
