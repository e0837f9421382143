"""The kernel: pure values in, pure values out. No clock, no SQLite, no sockets, no threads."""
