"""Takes the events that gateways post, and keeps of them what tells how old a channel's news is."""
