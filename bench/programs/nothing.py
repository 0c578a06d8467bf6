"""Bare Python."""


def main() -> None:
    """Nothing."""
