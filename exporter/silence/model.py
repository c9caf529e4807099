"""What was learned of all channels, and the file in which it outlasts a restart."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from exporter.silence.learning import Bounds, Learned
from exporter.silence.profile import WEEK_HOURS, Profile

_VERSION = 2
_MAX_BYTES = 256 * 1024 * 1024  # some ten times what 20,000 channels need


class ModelError(Exception):
    """The file holds nothing that can be used. ``str()`` is one line that says why."""


@dataclass(frozen=True, slots=True)
class Model:
    """What was learned, by channel key. ``learned_at`` is in Unix seconds of this machine."""

    learned_at: float
    channels: Mapping[str, Learned]

    @property
    def messages(self) -> int:
        """From how many messages."""
        return sum(learned.messages for learned in self.channels.values())


def save(path: Path, model: Model, bounds: Bounds) -> None:
    """Replace the file as a whole, so that it is never half of one; raise OSError."""
    content = {
        "version": _VERSION,
        "bounds": asdict(bounds),
        "learned_at": model.learned_at,
        "channels": {
            key: {
                "level": learned.level,
                "suspect_level": learned.suspect_level,
                "messages": learned.messages,
                "rates": [float(f"{rate:.6g}") for rate in learned.profile.rates],
            }
            for key, learned in model.channels.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # It is nobody else's to read: it names the channels, and tells when each is at work.
    with NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        new = Path(file.name)
        try:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise


def load(path: Path, bounds: Bounds) -> Model | None:
    """Return what was saved, None where there is no file; raise ModelError.

    What was learned for other ``bounds`` cannot be used: the levels depend on them.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path} is too large")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is not JSON") from None
    try:
        if content["version"] != _VERSION:
            raise ModelError(f"{path} was written by another version")
        if content["bounds"] != asdict(bounds):
            raise ModelError(f"{path} was learned for other settings")
        channels = {key: _learned(value) for key, value in content["channels"].items()}
        return Model(_number(content["learned_at"]), channels)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ModelError(f"{path} does not hold what it should") from None


def _learned(value: Any) -> Learned:
    rates = [_number(rate) for rate in value["rates"]]
    if len(rates) != WEEK_HOURS or min(rates) <= 0:
        raise ValueError
    return Learned(
        Profile(rates),
        _number(value["level"]),
        _number(value["suspect_level"]),
        int(_number(value["messages"])),
    )


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number
