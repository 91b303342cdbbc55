"""From evidence to alarm."""
