"""What the engines of one process share: clock, identity, threads, background loops."""
