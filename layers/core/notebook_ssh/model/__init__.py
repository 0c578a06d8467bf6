"""What is known and meant: records, what the tags request, statuses, checks, the managed block, keys. Pure."""
