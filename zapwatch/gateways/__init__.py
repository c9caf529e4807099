"""The gateways that can be watched: one interface, and an adapter for each of their APIs."""

TYPES = ("wrapper", "wppconnect", "evolution", "waha")
"""What the settings can name as a gateway's ``type``: known without loading the adapters."""
