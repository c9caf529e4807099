"""Commands and options are completed in the shell, by bash itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_BASH = """
eval "$(activate-global-python-argcomplete --dest=-)"
COMP_WORDS=(python -m $1 $2) COMP_CWORD=3 COMP_LINE="python -m $1 $2" COMP_TYPE=9
COMP_POINT=${#COMP_LINE}
_python_argcomplete_global python "$2" "$1"
echo "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("program", "begun", "completed"),
    [
        ("exporter", "--v", "--version"),
        ("exporter", "ex", "explain"),
        ("reconnect_hook", "ch", "check"),
        ("reconnect_hook", "", "serve check probe"),
    ],
)
def test_what_was_begun_is_completed(program: str, begun: str, completed: str) -> None:
    programs = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-c", _BASH, "bash", program, begun],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    offered = done.stdout.split()
    assert set(completed.split()) <= set(offered)
    assert begun == "" or offered == [completed]
