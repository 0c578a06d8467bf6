"""From AWS events and queue messages to what is to be reconciled. Pure."""
