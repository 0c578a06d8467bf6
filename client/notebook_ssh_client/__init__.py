"""The program that `ssh` calls to find a notebook by its name and to verify its host key.

Two commands run before every connection: `proxy` and `known-hosts`. They import as little as possible:
they and what they stand on (`transport`, `address_cache`, `ssh_address`, `messages`, `files`, `errors`) use only built-in
modules that load quickly (no dataclasses, json, re, typing or pathlib), and no botocore while the cached address is valid.
All other modules are for the commands that the user types.
"""

__version__ = "1.0.0"
