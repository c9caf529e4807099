"""The operators' page: what people see of the channels, and what they can ask for."""
