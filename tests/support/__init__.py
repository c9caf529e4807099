"""Shared test code: servers, waiting, PixelHub's side."""
