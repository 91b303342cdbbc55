"""Sampling, verifying and scoring rollouts of held-out prompts."""
