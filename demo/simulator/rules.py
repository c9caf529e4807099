"""Validation of values sent to the control API, before anything changes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from demo.simulator.errors import Refused

_MOST = 10**9
"""Limit for amounts: threads cannot wait longer than about 300 years of seconds."""


@dataclass(frozen=True)
class Rule:
    """Accepts or refuses one value; `expects` describes valid ones for messages."""

    expects: str
    accepts: Callable[[object], bool]


def one_of(*options: object) -> Rule:
    """Return a rule that accepts exactly these values."""
    words = ", ".join(str(option) for option in options)
    return Rule(
        f"one of {words}",
        lambda value: any(type(value) is type(option) and value == option for option in options),
    )


def or_null(rule: Rule) -> Rule:
    """Return a rule that also accepts null."""
    return Rule(f"{rule.expects}, or null", lambda value: value is None or rule.accepts(value))


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


ANYTHING = Rule("any JSON value", lambda _: True)
TEXT = Rule("a non-empty string", lambda value: isinstance(value, str) and value != "")
URL = Rule(
    "a URL in printable ASCII",
    lambda value: (
        isinstance(value, str) and value != "" and value.isascii() and value.isprintable()
    ),
)
SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
AMOUNT = Rule(f"a number from 0 to {_MOST}", _is_amount)
COUNT = Rule("a whole number, 0 or more", _is_count)
POSITIVE_COUNT = Rule("a whole number, 1 or more", lambda value: _is_count(value) and value != 0)
POSITIVE_AMOUNT = Rule(
    f"a number above 0, up to {_MOST}", lambda value: _is_amount(value) and value != 0
)

_OF_TYPES = {Any: ANYTHING, str: TEXT, bool: SWITCH, float: AMOUNT, int: COUNT}


def of_type(hint: Any) -> Rule:
    """Return the rule for the values of a type, which may be a Literal or optional."""
    options = get_args(hint)
    if get_origin(hint) is Literal:
        return one_of(*options)
    return or_null(of_type(options[0])) if options else _OF_TYPES[hint]


def check(values: object, rules: Mapping[str, Rule], what: str) -> dict[str, Any]:
    """Return the values as a dictionary; raise Refused for the first unknown or invalid one."""
    if not isinstance(values, dict):
        raise Refused(400, f"{what}: the body must be a JSON object")
    for name, value in values.items():
        rule = rules.get(name)
        if rule is None:
            known = ", ".join(sorted(rules))
            raise Refused(400, f"{what}: unknown setting {name!r}; known are {known}")
        if not rule.accepts(value):
            raise Refused(400, f"{what}: {name} must be {rule.expects}")
    return dict(values)
