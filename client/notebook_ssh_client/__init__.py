"""What `ssh` calls on a laptop to find a notebook by its name and to verify its host key.

Two commands sit before every connection, `proxy` and `known-hosts`. They import as little as they can:
`proxy`, `known_hosts`, `remembered`, `files` and `failures` use only built-in modules that are quick to load
(no dataclasses, json, typing or pathlib), and nothing of botocore while the remembered address is good.
Everything else is for commands that a person types.
"""

__version__ = "1.0.0"
