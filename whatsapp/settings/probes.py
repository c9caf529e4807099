"""Reads what an operator decides about asking quiet channels whether they are alive."""

from __future__ import annotations

from whatsapp.channels import channel_key
from whatsapp.probe_settings import ProbeKind, ProbeSettings, is_number
from whatsapp.settings.reader import Reader

_LONGEST_TEXT = 500  # characters of a message


def read_probes(read: Reader) -> ProbeSettings:
    """Return the settings of a gateway's probes; raise SettingsError."""
    return ProbeSettings(
        kind=_kind(read, "PROBE"),
        overrides=_kinds(read, "PROBE_OVERRIDES"),
        after_minutes=read.number("PROBE_AFTER_MINUTES", 30, above=0),
        pause_minutes=read.number("PROBE_PAUSE_MINUTES", 15, above=0),
        echoes_per_day=read.integer("PROBE_ECHOES_PER_DAY", 24, least=1),
        echo_numbers=_numbers(read, "PROBE_ECHO_NUMBERS"),
        echo_text=_line(read, "PROBE_ECHO_TEXT", "Zapwatch: does this arrive?"),
    )


def _kind(read: Reader, name: str) -> ProbeKind:
    text = read.text(name, ProbeKind.QUERY)
    try:
        return ProbeKind(text.lower())
    except ValueError:
        raise read.wrong(name, f"must be off, query or echo, not {text!r}") from None


def _kinds(read: Reader, name: str) -> dict[str, ProbeKind]:
    kinds = {}
    for key, value, item in _by_channel(read.text(name, " ")):
        if not key or value not in set(ProbeKind):
            raise read.wrong(
                name, f"must be channel=off, query or echo, as in loja=echo, not {item!r}"
            )
        kinds[key] = ProbeKind(value)
    return kinds


def _numbers(read: Reader, name: str) -> dict[str, str]:
    numbers: dict[str, str] = {}
    for key, value, item in _by_channel(read.text(name, " ")):
        if not key or not is_number(value):
            raise read.wrong(
                name,
                "must be channel=number, the number with its country code and digits only, as in "
                f"loja=5500000000001, not {item!r}",
            )
        if key in numbers:
            raise read.wrong(name, f"names one channel twice, the last time in {item!r}")
        if value in numbers.values():
            raise read.wrong(name, f"has one number for two channels, the last in {item!r}")
        numbers[key] = value
    return numbers


def _line(read: Reader, name: str, default: str) -> str:
    text = read.text(name, default)
    if not text.isprintable() or len(text) > _LONGEST_TEXT:
        raise read.wrong(name, f"must be one line of at most {_LONGEST_TEXT} characters")
    return text


def _by_channel(text: str) -> list[tuple[str, str, str]]:
    """Return key, value and the item itself for each ``channel=value`` of a list with commas."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    parts = [(*item.rpartition("=")[::2], item) for item in items]
    return [(channel_key(channel), value.strip(), item) for channel, value, item in parts]
