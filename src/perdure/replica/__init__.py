"""Replicas: the store's file copied to object storage by Litestream, under a lease that lies there
too.
"""
