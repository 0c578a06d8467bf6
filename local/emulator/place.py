"""The account and the region that are emulated."""

ACCOUNT = "123456789012"
REGION = "us-east-1"
