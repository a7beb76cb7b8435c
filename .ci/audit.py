"""Known advisories about what constraints.txt pins. Exit code 1 where a version without one is out.

What belongs here: asking pip-audit, and words for what it said. What doesn't: choosing versions.

    python .ci/audit.py PIP_AUDIT
"""

import json
import subprocess
import sys
from pathlib import Path

PINNED = Path(__file__).parent.parent / "constraints.txt"
SECONDS = 300


def main(pip_audit: str) -> int:
    """Print what is known."""
    command = [pip_audit, "--requirement", str(PINNED), "--no-deps", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        packages = json.loads(done.stdout)["dependencies"]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        print(f"audit: nothing was audited, pip-audit couldn't ask ({type(error).__name__})")
        return 0
    known = [package for package in packages if "skip_reason" not in package]
    found = [(package, advisory) for package in known for advisory in package["vulns"]]
    for package, advisory in found:
        fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    unknown = f"; the registry tells nothing of {len(packages) - len(known)}" if len(known) < len(packages) else ""
    print(f"audit: {len(known)} of {len(packages)} packages audited, {len(found)} advisories{unknown}")
    return int(any(advisory["fix_versions"] for _, advisory in found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
