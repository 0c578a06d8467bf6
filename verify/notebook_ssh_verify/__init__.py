"""Finds out on a real AWS account which of the facts hold that nobody could confirm (docs/facts.md).

`python -m notebook_ssh_verify --help` says how.
"""
