"""What gateways post of their own accord: parsed, and kept as channel, direction and time."""
