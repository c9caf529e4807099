"""``zapwatch gateways describe TYPE``: capabilities of a type of gateway."""

from __future__ import annotations

from zapwatch.cli import WRONG_USAGE, manual, parser, prepare_signals

if __name__ == "__main__":
    prepare_signals()

from collections.abc import Iterator, Sequence

from zapwatch.config import SettingsError, load
from zapwatch.gateways import NAMED_CHANNELS
from zapwatch.gateways.base import Gateway
from zapwatch.gateways.declaration import DeclarationError
from zapwatch.gateways.declared import DeclaredGateway
from zapwatch.gateways.registry import ADAPTERS, adapter_of
from zapwatch.server import fail, run

_MANUAL = manual(
    "Prints what a type of gateway can do, and what Zapwatch calls for it. It calls no gateway.",
    settings="GATEWAYS_FILE, for the types that its types_file describes",
    exit_codes={0: "printed", 2: WRONG_USAGE},
    examples=[
        "python -m zapwatch.gateways describe waha",
        "python -m zapwatch.gateways describe mygateway --env-file zapwatch.env",
    ],
)


def describe(kind: str, adapter: type[Gateway]) -> Iterator[tuple[str, str]]:
    """Yield the capabilities of a type as titles and texts."""
    declared = adapter.declaration if issubclass(adapter, DeclaredGateway) else None
    made = adapter.calls_made
    yield "type", kind + (", described in YAML" if declared else "")
    named = "named in the settings" if kind in NAMED_CHANNELS else "listed by the gateway"
    yield "channels", named
    yield "usual port", str(adapter.usual_port)
    yield "repair if down", made.down
    yield "repair if a zombie", made.zombie
    yield "repair if stuck", made.stuck
    yield "QR code needed", "listed" if adapter.lists_qr else "known by the call for the code only"
    yield "pairing code", made.code
    yield "probe", made.proof or "none"
    yield "own number", "by a call" if adapter.asks_number else "listed, if it is known"
    yield "echo taken back", _yes(adapter.can_take_back)
    yield "received messages", made.messages
    yield "activity in the list", _yes(adapter.lists_activity)
    signed = adapter.signature_header
    posts = declared is None or declared.events is not None
    yield "events", f"signed in {signed}" if signed else "with a token" if posts else "none"
    yield "pairing lost by", f"{made.lost} (only with RECONNECT_ALLOW_RESTART)"
    yield "channel then", "stays" if adapter.keeps_channel else "is recreated"


def _yes(value: bool) -> str:  # noqa: FBT001 - it is the value
    return "yes" if value else "no"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the description; return the exit code."""
    made = parser("python -m zapwatch.gateways", _MANUAL)
    made.add_argument("command", choices=["describe"], metavar="describe", help="what it can do")
    made.add_argument("type", metavar="TYPE", help=f"{', '.join(ADAPTERS)}, or one of your own")
    given = made.parse_args(arguments)
    try:
        adapter = ADAPTERS.get(given.type) or _own(given.type, given.env_file, given.pixelhub_env)
    except SettingsError as error:
        fail("gateways", str(error))
    for title, words in describe(given.type, adapter):
        print(f"{title:<22}{words}")  # noqa: T201 - this is for the operator
    return 0


def _own(kind: str, env_file: str | None, pixelhub_env: str | None) -> type[Gateway]:
    """Return the adapter of a user-defined type; raise SettingsError."""
    none = f"no type {kind!r}: there are {', '.join(ADAPTERS)}"
    try:
        gateways = load(env_file, pixelhub_env=pixelhub_env, quiet=True).gateways
    except DeclarationError:
        raise
    except SettingsError as error:
        raise SettingsError(f"{none}; and of the settings, which may name more: {error}") from None
    for gateway in gateways:
        if gateway.type == kind:
            return adapter_of(gateway)
    raise SettingsError(f"{none}, and those of your gateways")


if __name__ == "__main__":
    run(main)
