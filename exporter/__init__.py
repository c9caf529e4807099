"""Publishes whether each WhatsApp channel is connected and when its last message arrived."""
