"""The release, built from this checkout and installed into a separate environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

from tests.support.programs import environment
from tests.support.waiting import TIMEOUT

ROOT = Path(__file__).parents[2]
"""Path of the checkout."""


def build(kind: str, source: Path, folder: Path) -> Path:
    """Build the ``sdist`` or the ``wheel`` of the checkout in ``source``; return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "-d", str(folder)]
    _run(command, source)
    (built,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist and return the folder of its checkout."""
    # Python 3.11 up to 3.11.3 knows no safe tarfile.extractall(), and 3.12 warns of the other.
    folder.mkdir()
    _run(["tar", "--extract", "--file", str(sdist)], folder)
    (unpacked,) = folder.iterdir()
    return unpacked


class Installed:
    """A virtual environment with one wheel and its locked dependencies."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        venv.create(folder, symlinks=True)
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)]
        _run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], folder)
        # Replaces a download. The .pth files beside those packages, including the one with the
        # checkout's path, have no effect here.
        packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        (packages / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def command(self, *arguments: str) -> list[str]:
        """Return the command ``python -m arguments`` of this installation."""
        return [str(self.python), "-m", *arguments]


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without paths to the checkout."""
    made = environment(settings)
    del made["PYTHONPATH"]
    made.pop("VIRTUAL_ENV", None)
    return made


def _run(command: list[str], directory: Path) -> None:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout + done.stderr
