"""Thin adapters, one per trainer. Frameworks are imported by the adapter that needs them."""
