"""Ask the vulnerability service about every pinned package; where it cannot be reached, say so and fail."""

import json
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent


def _asked(name: str) -> list[dict]:
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off"]
    done = subprocess.run(
        [*command, "--format=json", f"--requirement={_HERE / name}"], capture_output=True, text=True, check=False
    )
    return json.loads(done.stdout)["dependencies"] if done.stdout.startswith("{") else []


_found = [dependency for name in ("ci.txt", "tools.txt") for dependency in _asked(name)]
_silent = [dependency["name"] for dependency in _found if "skip_reason" in dependency]
_known = {(d["name"], d["version"], v["id"]) for d in _found for v in d.get("vulns", [])}
for _name, _version, _vulnerability in sorted(_known):
    print(f"{_name} {_version}: {_vulnerability}")
if len(_silent) == len(_found):
    sys.exit("audit: the vulnerability service cannot be reached from here; nothing was audited")
if _silent:
    sys.exit(f"audit: nothing is known of {', '.join(sorted(set(_silent)))}")
if _known:
    sys.exit(f"audit: {len(_known)} known vulnerabilities; raise the pins, and run tox -e lock")
print(f"audit: {len(_found)} packages, no known vulnerability")
