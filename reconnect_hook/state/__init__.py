"""What the hook remembers, in a database: the queue, the channels' episodes, and their history."""
