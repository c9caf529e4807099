"""A program on a pseudo-terminal: tests read its questions and type the answers."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.support.programs import environment
from tests.support.waiting import TIMEOUT


class Terminal:
    """Runs ``python arguments``; the end of its ``with`` block ends a running program."""

    def __init__(self, directory: Path, *arguments: str, settings: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.said = ""
        """The output so far."""
        self._read = 0
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env={**environment(settings), "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # Makes it the controlling terminal, so that Ctrl-C reaches the program.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # noqa: PLW1509
        )
        os.close(theirs)

    def wait_for(self, text: str) -> str:
        """Wait for a text in the output since the last answer; return that output."""
        until = time.monotonic() + TIMEOUT
        while text not in self.said[self._read :]:
            assert time.monotonic() < until, f"no {text!r} in:\n{self.said}"
            assert self._more(), f"it ended without {text!r}:\n{self.said}"
        return self.said[self._read :]

    def answer(self, question: str, *keys: str, enter: bool = True) -> str:
        """Wait for a question and type the answer; return the output since the last one."""
        before = self.wait_for(question)
        self._read = len(self.said)
        os.write(self._ours, ("".join(keys) + "\r" * enter).encode())
        return before

    def press(self, question: str, key: str, then: str, again: float = 0.3) -> None:
        """Press a key until a text appears: keys before the program reads are lost."""
        self.wait_for(question)
        until = time.monotonic() + TIMEOUT
        while then not in self.said:
            assert time.monotonic() < until, f"no {then!r} in:\n{self.said}"
            os.write(self._ours, key.encode())
            pressed = time.monotonic()
            while then not in self.said and (left := pressed + again - time.monotonic()) > 0:
                if select.select([self._ours], [], [], left)[0]:
                    assert self._more(), f"it ended without {then!r}:\n{self.said}"

    def stop(self, question: str, then: str) -> None:
        """Press Ctrl-C instead of an answer; Python loses one when it starts to read."""
        self.press(question, "\x03", then, again=10.0)

    def end(self) -> int:
        while self._more():
            pass
        return self._process.wait(TIMEOUT)

    def _more(self) -> bool:
        """Read output; return whether there may be more."""
        ready, _, _ = select.select([self._ours], [], [], TIMEOUT)
        assert ready, f"it says nothing any more:\n{self.said}"
        try:
            read = os.read(self._ours, 65536)
        except OSError:  # on Linux: the other side is closed
            return False
        self.said += read.decode(errors="replace").replace("\r\n", "\n")
        return bool(read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # First as its user would: what a killed program has only just started would stay.
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._ours)
