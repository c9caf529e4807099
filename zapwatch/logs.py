"""Log output to stderr: one line for each event, as logfmt or JSON."""

from __future__ import annotations

import json
import logging
import sys
import time


class EventFormatter(logging.Formatter):
    """Formats a record's local time, level, logger, message and traceback as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line without a line end."""
        event = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return self.write(event)

    def write(self, event: dict[str, str]) -> str:
        """Return the event as JSON."""
        return json.dumps(event)


class LogfmtFormatter(EventFormatter):
    """Formats records as ``key=value``, with quotes and escapes where needed."""

    def write(self, event: dict[str, str]) -> str:
        """Return the event as logfmt."""
        return " ".join(f"{key}={_logfmt(value)}" for key, value in event.items())


def _logfmt(value: str) -> str:
    if value and value.isprintable() and not set(value) & set(' "=\\'):
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())


FORMATTERS = {"logfmt": LogfmtFormatter, "json": EventFormatter}


def log_to_stderr(level: str = "info", format_: str = "logfmt") -> None:
    """Configure logging to stderr; the arguments are LOG_LEVEL and LOG_FORMAT."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[format_]())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # At debug level it logs paths, and some of them contain WPPConnect Server's secret.
    logging.getLogger("urllib3").setLevel(logging.INFO)
