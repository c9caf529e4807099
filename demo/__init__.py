"""The demonstration: ``make run``, and the gateways that it simulates."""
