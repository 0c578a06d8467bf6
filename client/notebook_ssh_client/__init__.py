"""The program that `ssh` calls to find a notebook by its name, to verify its host key, and to log in by a certificate.

Three commands run before every connection: `certificate`, `proxy` and `known-hosts`. They import as little as possible:
they and what they stand on (`certificate_store`, `user_certificate`, `transport`, `address_cache`, `ssh_address`,
`messages`, `files`, `errors`) use only built-in modules that load quickly (no dataclasses, json, re, typing or pathlib),
and no botocore while the cached address and the certificate are valid.
All other modules are for the commands that the user types.
"""

__version__ = "1.0.0"
