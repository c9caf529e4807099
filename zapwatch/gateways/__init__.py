"""Supported gateways: one interface, and an adapter for each API."""

TYPES = (
    "wrapper",
    "wppconnect",
    "evolution",
    "waha",
    "whapi",
    "gowa",
    "openwa",
    "wuzapi",
    "wwebjs-api",
)
"""Values of a gateway's ``type``, listed here so that settings need not load the adapters."""

NAMED_CHANNELS = frozenset({"whapi"})
"""Types without a channel list; the settings name each channel, with its own secret."""

BEARERS = frozenset({"wppconnect", "whapi", "gowa", "wuzapi"})
"""Types whose token uses the header Authorization, and so exclude HTTP Basic."""

PUBLIC_URLS = {"whapi": "https://gate.whapi.cloud"}
"""Base URLs of hosted services."""
