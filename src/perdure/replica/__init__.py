"""Replicas: the store's file, copied to object storage by Litestream under a lease."""
