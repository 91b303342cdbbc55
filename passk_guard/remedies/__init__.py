"""From alarm to action."""
