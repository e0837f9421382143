"""Stores: where histories live. One method, one transaction; nothing here knows of asyncio."""
