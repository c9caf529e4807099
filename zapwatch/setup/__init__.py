"""``zapwatch init``: guided setup of gateway, message source, notifications and heartbeat."""
