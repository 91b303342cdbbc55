"""Per-prompt gradients of pass@1, and their Gramian."""
