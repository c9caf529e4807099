"""Publishes for each WhatsApp channel whether it is connected and when its last message came."""
