"""Message sources: PixelHub's log, posted events, and the gateway's channel list."""
