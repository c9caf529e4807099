"""Benchmarks, which print ratios: ``python -m benchmarks.NAME``."""
