"""How older state databases become those of today."""
