"""The simulated gateway: every shape and failure of real ones, switchable at run time."""
