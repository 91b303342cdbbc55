"""A run under guard: its begin, looks, end and state."""
