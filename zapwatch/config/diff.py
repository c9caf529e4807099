"""What is different between the settings that count and those that were read again."""

from __future__ import annotations

from dataclasses import dataclass, fields

from zapwatch.config.settings import GatewaySettings, Settings


@dataclass(frozen=True, slots=True)
class Changes:
    """The gateways' names, with what has changed of each; ``str()`` is a line for the log."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: dict[str, tuple[str, ...]]
    of_the_program: tuple[str, ...]
    """The settings that count from the next start on."""

    def __str__(self) -> str:
        changed = [f"{name} ({', '.join(what)})" for name, what in self.changed.items()]
        parts = [
            f"{verb} {', '.join(names)}"
            for verb, names in (
                ("added", self.added),
                ("removed", self.removed),
                ("changed", changed),
            )
            if names
        ]
        if self.of_the_program:
            parts.append(f"only a restart changes {', '.join(self.of_the_program)}")
        return "; ".join(parts) or "nothing has changed"


def compare(before: Settings, after: Settings) -> Changes:
    """Return what has changed, by names without any value: some are secret."""
    old = {gateway.name: gateway for gateway in before.gateways}
    new = {gateway.name: gateway for gateway in after.gateways}
    return Changes(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed={
            name: _different(old[name], gateway)
            for name, gateway in new.items()
            if name in old and old[name] != gateway
        },
        of_the_program=tuple(
            name.upper() for name in _different(before, after) if name != "gateways"
        ),
    )


def _different(
    before: Settings | GatewaySettings, after: Settings | GatewaySettings
) -> tuple[str, ...]:
    names = (field.name for field in fields(before))
    return tuple(name for name in names if getattr(before, name) != getattr(after, name))
