"""Some hundred wrong requests; `python -m benchmarks.hook_fuzz` sends 10,000 and more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.fuzz import fuzz


def test_nothing_that_is_sent_breaks_it_or_makes_it_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    findings = fuzz(tmp_path, examples=4, payloads=150, seed=seed)
    with capsys.disabled():
        print(f"\nfuzz: {findings}")  # noqa: T201 - the seed must be seen
    assert findings.faults == []
    assert findings.requests > 180
    assert {202, 400, 401} <= findings.statuses.keys()
