"""Decisions: observed state, desired state and the time in; actions, each with its reason, out. Pure."""
