"""How many rollouts of each prompt were right, from whatever wrote it down."""
