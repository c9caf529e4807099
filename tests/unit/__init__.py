"""Tests of single parts, in this process alone."""
