"""What both programs know of the outside world: channels, gateway, message log, settings."""

__version__ = "0.1.0"
