"""The operators' page: status of the channels, and the actions on them."""
