"""Takes repairs from the queue and sees them through: looks, asks the gateway, and watches."""
