"""Takes Alertmanager's alerts, makes the gateway reconnect the channels, and checks that it did."""
