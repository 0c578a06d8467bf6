"""Finds out on a real AWS account which of the facts hold that could not be confirmed (docs/facts.md).

`python -m notebook_ssh_verify --help` says how.
"""
