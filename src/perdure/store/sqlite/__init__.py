"""The SQLite backend: connections, transactions, named queries."""
