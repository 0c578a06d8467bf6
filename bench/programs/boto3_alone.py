"""What a function that uses boto3 pays before its own first line."""


def main() -> None:
    """The import, and nothing else."""
    import boto3  # noqa: F401
