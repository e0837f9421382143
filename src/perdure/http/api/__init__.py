"""Resources of `/api/v1`."""
