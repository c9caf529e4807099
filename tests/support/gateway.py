"""A gateway client that records its calls."""

from __future__ import annotations

from typing import Any, Self

import pytest

from tests.support.hooks import SECRET
from zapwatch.gateways.base import GatewayError, GatewayErrorKind, Operation
from zapwatch.gateways.wrapper import WrapperGateway


class Observed:
    """A client whose calls are recorded; for a ``with`` statement."""

    def __init__(self, url: str, secret: str = SECRET, **options: Any) -> None:
        self.calls: list[tuple[Operation, float, GatewayErrorKind | None]] = []
        self.client = WrapperGateway(url, secret, observe=self._note, **options)

    def _note(self, operation: Operation, seconds: float, reason: GatewayErrorKind | None) -> None:
        self.calls.append((operation, seconds, reason))

    @property
    def outcomes(self) -> list[tuple[Operation, GatewayErrorKind | None]]:
        """Calls without their durations."""
        return [(operation, reason) for operation, _, reason in self.calls]

    def call(self, operation: str) -> Any:
        """List the channels, or ask for the QR code of ``loja``."""
        return self.client.list_channels() if operation == "list" else self.client.qr("loja")

    def failure(self, operation: str) -> GatewayError:
        """Make a call that must fail, and check the properties of every failure."""
        before = len(self.calls)
        with pytest.raises(GatewayError) as caught:
            self.call(operation)
        error = caught.value
        assert error.operation == operation
        assert error.detail
        assert error.detail.isprintable(), "one line"
        assert len(error.detail) <= 240
        assert str(error) == f"{operation}: {error.reason}: {error.detail}"
        assert error.request_id
        assert SECRET not in f"{error!r}{error}{error.__cause__!r}"
        assert [(o, r) for o, _, r in self.calls[before:]] == [(operation, error.reason)]
        return error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
