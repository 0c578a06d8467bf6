"""Use cases: each observes, plans and applies."""
