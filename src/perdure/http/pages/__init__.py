"""Pages made by the server; they work without JavaScript for reading."""

from perdure.http import paths  # noqa: F401  (its import makes `{id:name}` known to routes)
