"""A real Prometheus that scrapes a test's metrics, with optional backfilled samples."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import requests
import yaml

from demo.loop import Children
from tests.support.ports import free
from tests.support.waiting import wait_until


class Prometheus:
    """Scrapes one target each second; for a ``with`` statement. ``folder`` may contain data."""

    def __init__(self, folder: Path, target: str, **job: object) -> None:
        at = free()
        self.url = f"http://{at}"
        self.data = folder / "prometheus"
        self._folder = folder
        self._at = at
        self._target = target
        self._job = job
        self._children = Children(folder)

    def query(self, expression: str) -> list[dict[str, object]]:
        answer = requests.get(f"{self.url}/api/v1/query", {"query": expression}, timeout=30)
        return list(answer.json()["data"]["result"])

    def __enter__(self) -> Self:
        config = self._folder / "prometheus.yml"
        scrape = {
            "job_name": "zapwatch-exporter",
            "static_configs": [{"targets": [self._target]}],
            **self._job,
        }
        often = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config.write_text(yaml.safe_dump({"global": often, "scrape_configs": [scrape]}))
        self._children.start(
            "prometheus",
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self.data}",
                f"--web.listen-address={self._at}",
                "--log.level=warn",
            ],
            os.environ,
        )
        wait_until(self._has_scraped, "the first scrape")
        return self

    def _has_scraped(self) -> bool:
        self._children.check()
        try:
            return bool(self.query('up{job="zapwatch-exporter"} == 1'))
        except (requests.RequestException, ValueError, KeyError):
            return False

    def __exit__(self, *_: object) -> None:
        self._children.stop()
