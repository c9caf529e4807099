"""The simulated gateway: every shape and failure of the real one, switchable while it runs."""
