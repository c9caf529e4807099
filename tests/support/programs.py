"""A program of Zapwatch in a separate process."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import logging
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from unittest import mock

import requests

from tests.support.samples import Metrics
from tests.support.waiting import TIMEOUT, wait_until

_ROOT = Path(__file__).parents[2]
_KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV"),
    *("SSL_CERT_FILE", "COVERAGE_PROCESS_CONFIG"),
)

FORKS: Any = multiprocessing.get_context("forkserver")
"""Starts processes from one that has imported what programs import, which saves each a second."""

FORKS.set_forkserver_preload(
    [
        *("alembic.command", "exporter.app", "exporter.supervisor", "exporter.silence.explain"),
        *("reconnect_hook.app", "reconnect_hook.dashboard.register", "reconnect_hook.supervisor"),
        *("sqlalchemy.dialects.mysql.pymysql", "tests.support.mortal_hooks", "zapwatch.front"),
    ]
)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with these settings, and none of the tests' own."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1", **settings}


def run(
    directory: Path, *arguments: str, settings: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m arguments`` to its end, with ``directory`` as working directory."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=directory,
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


def run_here(
    directory: Path, *arguments: str, settings: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """As run(), in this process and a second faster, for commands that do not serve.

    A module that is no package has the ``main`` itself.
    """
    module = importlib.import_module(arguments[0])
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{arguments[0]}.__main__")
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(directory),
        mock.patch.dict(os.environ, environment(settings), clear=True),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        _kept(logging.StreamHandler(stderr)),
        # Otherwise a program that serves would block the test.
        mock.patch("zapwatch.front.Server.run", side_effect=AssertionError("it serves")),
    ):
        try:
            code = module.main(list(arguments[1:]))
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


@contextlib.contextmanager
def _kept(stderr: logging.Handler) -> Iterator[None]:
    """Send warnings to ``stderr``, and restore the process-wide settings of a program."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    hook, interval = sys.unraisablehook, sys.getswitchinterval()
    stderr.setLevel(logging.WARNING)
    logging.getLogger().addHandler(stderr)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(stderr)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        sys.setswitchinterval(interval)
        gc.unfreeze()


class Program:
    """Runs ``python -m arguments``; the end of its ``with`` block kills a running program."""

    def __init__(self, directory: Path, *arguments: str, settings: Mapping[str, str]) -> None:
        self._stderr = directory / f"{arguments[0]}.{os.urandom(4).hex()}.stderr"
        self._stderr.touch()
        self.process = self._start(directory, arguments, environment(settings))

    def _start(self, directory: Path, arguments: Sequence[str], env: Mapping[str, str]) -> Any:
        with self._stderr.open("wb") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(encoding="utf-8")

    @property
    def lines(self) -> list[str]:
        """Complete lines of stderr."""
        return self.stderr.split("\n")[:-1]

    @property
    def url(self) -> str:
        """Its URL; waits until the program logs it to stderr."""
        return wait_until(self._find_url, "a URL on stderr")

    def _find_url(self) -> str:
        assert self.process.poll() is None, self.stderr
        found = re.search(r' at (https?://\S+)/(?:metrics|alerts)"\n', self.stderr)
        return found[1] if found else ""

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=TIMEOUT)

    def metrics(self) -> Metrics:
        page = self.get("/metrics")
        assert page.status_code == 200
        return Metrics(page.text)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        """Wait for the program's end and return the exit code."""
        return int(self.process.wait(TIMEOUT))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.wait()


class Fork(Program):
    """Runs a program as ``python -m arguments`` would, in a process of FORKS."""

    def _start(self, directory: Path, arguments: Sequence[str], env: Mapping[str, str]) -> Any:
        call = (directory, arguments, env, self._stderr)
        process = FORKS.Process(target=_run_module, args=call, daemon=True)
        process.start()
        process.poll = lambda: process.exitcode
        return process

    def wait(self) -> int:
        self.process.join(TIMEOUT)
        assert self.process.exitcode is not None, self.stderr
        return int(self.process.exitcode)


def _run_module(
    directory: Path, arguments: Sequence[str], env: Mapping[str, str], stderr: Path
) -> None:
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    null = os.open(os.devnull, os.O_RDWR)
    for number, file in enumerate((null, null, os.open(stderr, os.O_WRONLY))):
        os.dup2(file, number)
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
