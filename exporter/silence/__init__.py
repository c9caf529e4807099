"""Silence thresholds: learned for each channel from its traffic at each hour of the week."""
