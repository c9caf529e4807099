"""How long each channel may be silent: learned from how it talks at each hour of the week."""
