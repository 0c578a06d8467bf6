"""One module a service: reads and writes, no decisions."""
