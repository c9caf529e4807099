"""How programs end, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import environment

_SECONDS = 60.0
_SIGNALLED_IN = {
    "a finalizer": """
class Signalled:
    def __del__(self):
        signal.raise_signal(number)
        time.sleep(0)
made = Signalled()
del made
""",
    "a weak reference's callback": """
class Made: pass
def signalled(_):
    signal.raise_signal(number)
    time.sleep(0)
made = Made()
kept = weakref.ref(made, signalled)
del made
""",
    "its work": "signal.raise_signal(number)",
}


def _run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment({}),
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )


@pytest.mark.parametrize("where", _SIGNALLED_IN)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_wherever_it_comes(tmp_path: Path, where: str, name: str) -> None:
    program = (
        "import signal, time, weakref\n"
        "from zapwatch.server import end_on_signals, run\n"
        f"number = signal.{name}\n"
        "end_on_signals(3)\n"
        f"{_SIGNALLED_IN[where]}\n"
        "time.sleep(3600)\n"
    )
    done = _run(program, tmp_path)
    assert (done.returncode, done.stderr) == (3, "")


def test_another_fault_in_a_finalizer_is_still_told(tmp_path: Path) -> None:
    program = (
        "from zapwatch.server import end_on_signals\n"
        "end_on_signals()\n"
        "class Faulty:\n"
        "    def __del__(self): 1 / 0\n"
        "Faulty()\n"
    )
    done = _run(program, tmp_path)
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
