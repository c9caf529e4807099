"""The samples of a scrape."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """The samples of one scrape in the older text format."""

    def __init__(self, page: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(page) for sample in family.samples
        ]

    def get(self, name: str, **labels: str) -> float | None:
        """Return the value of the only sample with these labels, None without one."""
        found = self.all(name, **labels)
        assert len(found) <= 1, found
        return next(iter(found.values()), None)

    def all(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of all samples with these labels, by the values of other labels.

        The other labels are sorted by name.
        """
        return {
            tuple(v for k, v in sorted(sample.labels.items()) if k not in labels): sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        }
