"""Live events: what changes in a store, reported to pages and clients as server-sent events."""
