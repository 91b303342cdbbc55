"""What a look may touch and cost, and how processes share it."""
