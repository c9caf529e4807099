"""The HTTP APIs that a simulated gateway can speak."""
