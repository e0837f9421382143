"""The API below `/api/v1`: everything that the command line can do, as resources.

Rules: one table of operations makes the routes, the OpenAPI document and the reference page; what
is read comes from the site's reader, what changes something is a verb of its engine; values are
those that the command line prints with --json.
"""
