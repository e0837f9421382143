"""Integrations with other people's libraries, each behind an extra of its name."""
