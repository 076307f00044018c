"""One offline audit in a process of its own, for bench.ledger: prints its seconds and its peak memory in bytes."""

import re
import sys
import time
from pathlib import Path


def main() -> int:
    """Audit the mirror of the first argument by the policy of the second."""
    # Imported here, as the command does it: worker processes import this module again.
    from client.audit.auditing import audit_mirror  # noqa: PLC0415
    from client.audit.mirror import Mirror  # noqa: PLC0415
    from client.evidence import EvidenceStore  # noqa: PLC0415
    from registry.trust import TrustPolicy  # noqa: PLC0415

    mirror, policy = Mirror(Path(sys.argv[1])), TrustPolicy.parse(Path(sys.argv[2]).read_text())
    begun = time.perf_counter()
    audit = audit_mirror(mirror, policy, EvidenceStore(mirror.directory))
    print(time.perf_counter() - begun, _peak_bytes())
    return len(audit.findings)


def _peak_bytes() -> int:
    """Peak memory of this process; getrusage would count the memory of the one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("/proc/self/status tells no VmHWM")
    return int(found[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
