"""Pages for people, made by the server; they work without JavaScript for reading."""
