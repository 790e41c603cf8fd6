"""Refuse an environment in which a dependency installs a package named like one of our top-level rooms.

``assets``, ``sensors``, ``resources`` and ``dbt_like_sql`` are plain names; a dependency with the same one would shadow
ours or be shadowed. Run by ``make check``.
"""

from __future__ import annotations

import sys
from importlib.metadata import distributions

ROOMS = ("assets", "sensors", "resources", "dbt_like_sql", "blaid_pipelines")
OURS = "blaid-pipelines"


def main() -> int:
    """Exit status 1 with one line per clash."""
    clashes = [
        f"{distribution.name} {distribution.version} installs {path}"
        for distribution in distributions()
        if distribution.name != OURS
        for path in distribution.files or ()
        if path.parts and path.parts[0].removesuffix(".py") in ROOMS
    ]
    for clash in clashes:
        print(f"room name taken: {clash}", file=sys.stderr)
    return 1 if clashes else 0


if __name__ == "__main__":
    sys.exit(main())
