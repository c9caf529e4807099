"""Receives Alertmanager's alerts, reconnects channels at their gateway and verifies the result."""
