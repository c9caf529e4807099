"""Shared library of both programs: settings, gateways, message sources, HTTP, database."""

__version__ = "1.0.0"
