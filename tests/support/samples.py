"""The samples of a scrape."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """The samples of one scrape in the older text format."""

    def __init__(self, page: str) -> None:
        self._lines = page.split("\n")

    def get(self, name: str, **labels: str) -> float | None:
        """Return the value of the only sample with these labels, None without one."""
        found = self.all(name, **labels)
        assert len(found) <= 1, found
        return next(iter(found.values()), None)

    def all(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of all samples with these labels, by the values of other labels.

        The other labels are sorted by name.
        """
        # Parsing the whole page would take longer than making it.
        lines = [line for line in self._lines if line.startswith((f"{name}{{", f"{name} "))]
        return {
            tuple(v for k, v in sorted(sample.labels.items()) if k not in labels): sample.value
            for family in text_string_to_metric_families("\n".join([*lines, ""]))
            for sample in family.samples
            if labels.items() <= sample.labels.items()
        }
