"""The rules: pure functions of what was observed, what is wished and the clock. No AWS, no environment, no logger."""
