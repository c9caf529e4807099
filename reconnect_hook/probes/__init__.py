"""Asks quiet channels whether they are alive, and finds out which one is dead where one is."""
