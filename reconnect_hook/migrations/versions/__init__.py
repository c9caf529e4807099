"""One file per revision. None is ever changed once a release has it."""
