"""notebook-ssh: SSH to SageMaker notebook instances, hands-off. The code that runs in Lambda."""

__version__ = "1.0.0"
