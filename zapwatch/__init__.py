"""Shared library of both programs: settings, gateways, message sources, HTTP, database."""

__version__ = "0.1.0"
