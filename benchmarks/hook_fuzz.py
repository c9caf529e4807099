"""A fuzz run against the reconnect hook: requests by its OpenAPI description, and bent payloads.

    python -m benchmarks.hook_fuzz [REQUESTS [SEED]]

About as many requests (10,000). Ends with exit code 1 if there was an answer that the description
does not allow, a server error, a traceback, a secret on stderr, or a call to the gateway that no
payload asked for.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.support.fuzz import fuzz


def main() -> int:
    """Send, look and print."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "big")
    with tempfile.TemporaryDirectory() as folder:
        # The description has two operations that take bodies, and five that take nothing.
        findings = fuzz(Path(folder), examples=wanted // 4, payloads=wanted * 6 // 10, seed=seed)
    print(findings)
    for fault in findings.faults[:20]:
        print(fault)
    return 1 if findings.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
