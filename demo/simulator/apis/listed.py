"""Common base of the APIs whose gateways are declared in YAML."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

from flask import Blueprint, Response

from demo.simulator.apis.calls import METHODS, SimulatedCalls
from demo.simulator.apis.wrapper_answers import WrapperAnswer
from demo.simulator.channel import SimulatedChannel
from demo.simulator.faults import FaultBook
from demo.simulator.journal import Journal
from demo.simulator.model import SimulatedGateway

Work = Callable[[SimulatedChannel, float], WrapperAnswer]
Route = tuple[str, str, Callable[..., Response]]
"""HTTP method, path, view."""


class ListedApi(ABC):
    """Calls of one API that has a list of channels."""

    unauthorized: ClassVar[WrapperAnswer]
    """Answer to a wrong secret."""
    unknown: ClassVar[WrapperAnswer]
    """Answer to an unknown path."""
    missing: ClassVar[WrapperAnswer]
    """Answer about an unknown channel."""
    no_code: ClassVar[WrapperAnswer]
    """Answer if no pairing code is issued."""

    def __init__(
        self, gateway: SimulatedGateway, faults: FaultBook, journal: Journal, secret: str
    ) -> None:
        self.gateway = gateway
        self.secret = secret
        self._calls = SimulatedCalls(faults, journal, self.unauthorized)

    @abstractmethod
    def routes(self) -> Iterable[Route]:
        """Return method, path and view of each call."""

    @abstractmethod
    def is_right(self) -> bool:
        """Whether the request's headers contain the secret."""

    def blueprint(self) -> Blueprint:
        """Create the routes. Paths arrive undecoded, so that `%2F` is no separator."""
        made = Blueprint("api", __name__)
        for number, (method, path, view) in enumerate(self.routes()):
            made.add_url_rule(path, str(number), view, methods=[method])
        made.add_url_rule("/<path:rest>", "unknown", self._unknown, methods=METHODS)
        return made

    def about(self, operation: str, channel: str, work: Work) -> Response:
        """Answer a call about a channel with `work`, or `missing` if it is unknown."""
        return self.answer(operation, channel, lambda: self.gateway.at(channel, work, self.missing))

    def issue_code(
        self, channel: str, number: str, told: Callable[[str], WrapperAnswer]
    ) -> Response:
        """Issue a pairing code; ``told`` turns it into the answer."""

        def issue(one: SimulatedChannel, now: float) -> WrapperAnswer:
            if one.status != "qr_required" or one.knobs.pairing == "refused":
                return self.no_code
            code = self.gateway.next_pairing_code()
            one.issue_code(number, code, now)
            return told(f"{code[:4]}-{code[4:]}")

        return self.about("pairing_code", channel, issue)

    def answer(
        self, operation: str, channel: str | None, work: Callable[[], WrapperAnswer]
    ) -> Response:
        """Answer a call with `work`, or `unauthorized` if the secret is wrong."""
        return self._calls.answer(operation, channel, work, right=self.is_right())

    def _unknown(self, **_: str) -> Response:
        return self.answer("unknown", None, lambda: self.unknown)
