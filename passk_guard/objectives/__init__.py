"""From rewards to advantages: pass@k objectives with k and λ live."""
