"""Fuzzes the reconnect hook: requests from its OpenAPI description, and mutated payloads.

    python -m benchmarks.hook_fuzz [REQUESTS [SEED]]

Sends about REQUESTS requests (10,000). Exit code 1: an answer that the description does not allow,
a server error, a traceback, a secret on stderr, or a call to the gateway that no payload requested.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.support.fuzz import fuzz


def main() -> int:
    """Run the fuzzer and print its findings; return the exit code."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "big")
    with tempfile.TemporaryDirectory() as folder:
        # The description has 26 operations, and the paths take half as many requests as payloads.
        findings = fuzz(Path(folder), examples=wanted // 100, payloads=wanted // 2, seed=seed)
    print(findings)
    for fault in findings.faults[:20]:
        print(fault)
    return 1 if findings.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
