"""The demonstration behind ``make run``, and its simulated gateways."""
