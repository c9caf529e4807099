"""Validation of values sent to the control API, before anything changes."""

from collections.abc import Mapping
from typing import Any, get_args


class Refused(Exception):  # noqa: N818 - the name states the result
    """A refused control call, with the HTTP status and a line with the reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check(values: object, hints: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the values as a dictionary; raise Refused for the first unknown or invalid one.

    ``hints`` are the types of the known ones. Only a Literal is compared with its values.
    """
    if not isinstance(values, dict):
        raise Refused(400, f"{what}: the body must be a JSON object")
    for name, value in values.items():
        if name not in hints:
            known = ", ".join(sorted(hints))
            raise Refused(400, f"{what}: unknown setting {name!r}; known are {known}")
        options = [one for one in get_args(hints[name]) if not isinstance(one, type)]
        if options and value not in options:
            raise Refused(400, f"{what}: {name} must be one of {', '.join(map(str, options))}")
    return dict(values)
