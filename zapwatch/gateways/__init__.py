"""The gateways that can be watched: one interface, and an adapter for each of their APIs."""
