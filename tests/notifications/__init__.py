"""What people are told: the shipped configuration, delivered by a real Alertmanager."""
