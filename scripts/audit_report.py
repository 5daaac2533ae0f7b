"""Judge a report of pip-audit: what is known, and whether everything was asked; start it with scripts/audit.

pip-audit itself says "No known vulnerabilities found" of packages that its service does not know or that it
could not ask about; an audit that did not take place must not look like a good one.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GOOD, VULNERABLE, NOT_ASKED = 0, 1, 2


def judged(lock: str, report: Mapping[str, Any] | None) -> tuple[int, list[str]]:
    """Return an exit status, and lines that say what was found.

    Args:
        lock: the lock file that was audited.
        report: what pip-audit wrote (its JSON format); None where it wrote none.
    """
    packages = list(report.get("dependencies", [])) if report is not None else []
    if not packages:
        why = "pip-audit wrote no report; was its service reached?"
        return NOT_ASKED, [f"{lock} was NOT audited: {why}"]
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    lines = [
        f"{lock}: {each['name']} {each['version']} has {known['id']}: "
        f"{', '.join(known.get('fix_versions', [])) or 'no version'} mends it."
        for each in packages
        for known in each.get("vulns", [])
    ]
    status = VULNERABLE if lines else GOOD
    if skipped:
        lines.append(
            f"{lock} was NOT audited in full: of {len(skipped)} of {len(packages)} packages the service says "
            f"nothing ({', '.join(skipped[:3])}, …). Ask again where it can be reached."
        )
        status = max(status, NOT_ASKED)
    return status, lines or [f"{lock}: nothing is known of its {len(packages)} packages."]


def main(lock: str, path: Path) -> int:
    """Print what was found, and return the exit status."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        report = None
    status, lines = judged(lock, report)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
