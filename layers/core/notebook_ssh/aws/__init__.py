"""The adapters: the only code that talks to AWS. They observe and apply; they decide nothing."""
