"""Scripts that measure and print ratios: ``python -m benchmarks.NAME``."""
