"""Child processes: started, watched, and stopped by their pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STOP_SECONDS = 8.0
_LAST_LINES = 8


class ChildError(Exception):
    """A child ended by itself. ``str()`` contains its last lines; ``code`` is its exit code."""

    def __init__(self, name: str, code: int, last_lines: str) -> None:
        super().__init__(f"{name} ended with exit code {code}:\n{last_lines}")
        self.code = code


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    output: Path


class Children:
    """Processes of one demonstration; each writes its output to its own file in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[_Child] = []

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str]) -> None:
        """Start a child, which also ends when this process is killed (with setpriv)."""
        output = self._folder / f"{name}.log"
        setpriv = shutil.which("setpriv")
        prefix = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*prefix, *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches only the parent, which then stops its children.
                start_new_session=True,
            )
        self._children.append(_Child(name, process, output))

    def pid(self, name: str) -> int:
        """Return the pid of the child with that name; raise StopIteration."""
        return next(child.process.pid for child in self._children if child.name == name)

    def check(self) -> None:
        """Raise ChildError if a child has ended."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise ChildError(child.name, code, self.last_lines(child.name))

    def last_lines(self, name: str) -> str:
        """Return the last 8 lines of a child's output."""
        text = (self._folder / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-_LAST_LINES:])

    def kill(self, name: str) -> None:
        """Send SIGKILL to a child, as a crash would, and stop watching it."""
        for child in [one for one in self._children if one.name == name]:
            child.process.kill()
            child.process.wait()
            self._children.remove(child)

    def stop(self) -> None:
        """Stop all children, the last one started first; SIGKILL after 8 s."""
        for child in reversed(self._children):
            _signal(child, signal.SIGTERM)
        until = time.monotonic() + _STOP_SECONDS
        for child in reversed(self._children):
            try:
                child.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(child, signal.SIGKILL)
                child.process.wait()
        self._children.clear()


def _signal(child: _Child, number: signal.Signals) -> None:
    # After a wait the pid may belong to another process.
    if child.process.poll() is None:
        os.kill(child.process.pid, number)
