"""Hooks of Schemathesis: each request comes from an address of its own.

Wrong tokens are counted by address, and Schemathesis tries one at each operation.
"""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.support.fuzz import forwarded


@schemathesis.hook
def before_call(context: object, case: schemathesis.Case[Any], kwargs: object) -> None:
    case.headers.update(forwarded())
