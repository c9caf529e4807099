"""The HTTP APIs of the simulated gateway."""
