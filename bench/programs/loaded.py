"""What one of our functions has loaded after its first answer."""

from __future__ import annotations

import json
import sys


def main(function: str) -> None:
    """Print, as JSON, the modules, and the services for which clients were made."""
    import botocore.session
    import calls

    made = []
    create = botocore.session.Session.create_client

    def noted(session: object, service: str, **given: object) -> object:
        made.append(service)
        return create(session, service, **given)

    botocore.session.Session.create_client = noted
    calls.main(function, "1")
    print(json.dumps({"modules": sorted(sys.modules), "clients": made}))
