"""reconnect_hook."""
