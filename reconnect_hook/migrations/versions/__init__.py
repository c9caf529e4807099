"""One file a step. None is ever changed once a release has it."""
