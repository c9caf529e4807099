"""Answers of real gateways, recorded call by call without a route to WhatsApp; keys replaced."""
