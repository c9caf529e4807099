"""The gateways that can be watched: one interface, and an adapter for each of their APIs."""

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
"""What the settings can name as a gateway's ``type``: known without loading the adapters."""

NAMED_CHANNELS = frozenset({"whapi"})
"""The types whose gateway has no list: the settings name each channel, with a secret of its own."""

BEARERS = frozenset({"wppconnect", "whapi", "gowa", "wuzapi"})
"""The types whose token needs the header in which a user and password would be."""

PUBLIC_URLS = {"whapi": "https://gate.whapi.cloud"}
"""The base URL of those that are the same server for everybody."""
