"""Losses after kill -9 at random moments, on SQLite with one hook and on MariaDB with two.

    python -m benchmarks.hook_crashes [KILLS [SEED]]

KILLS kills (200) on each. Exit code 1: an accepted alert without an outcome, an outcome that is not
in the log, or a repair with more calls than one plus one for each kill.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa

from tests.support.crashes import Toll, crash
from tests.support.mariadb import MariaDb


def main() -> int:
    """Run the benchmark and print the losses; return the exit code."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "big")
    with tempfile.TemporaryDirectory() as folder, MariaDb() as server:
        file = sa.make_url(f"sqlite:///{folder}/state.sqlite3")
        shared = server.url(server.create_database())
        tolls = {
            "SQLite, one hook": crash(Path(folder), file, hooks=1, kills=kills, seed=seed),
            "MariaDB, two hooks": crash(Path(folder), shared, hooks=2, kills=kills, seed=seed),
        }
    for title, toll in tolls.items():
        print(f"{title}: {toll}")
    return 1 if any(map(_is_bad, tolls.values())) else 0


def _is_bad(toll: Toll) -> bool:
    return bool(toll.lost or toll.unlogged or toll.too_many)


if __name__ == "__main__":
    raise SystemExit(main())
