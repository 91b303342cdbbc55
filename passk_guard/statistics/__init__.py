"""From rollouts and gradients to evidence."""
