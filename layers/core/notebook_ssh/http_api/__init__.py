"""The HTTP API: requests, responses, and what each of them shows."""
