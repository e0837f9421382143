"""HTTP interface of a store: pages and `/api/v1`, as an ASGI application.

Rules: it knows the engine, the store's reader and the views; what is read comes from the reader,
beside the engine; what changes something is a verb of the engine.
"""
