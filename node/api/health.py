"""What keeps this node from its work, in words (DESIGN 5: health by freshness)."""

from node.api.services import Services

STEP_LATE_S_MAX = {"applied": 10.0, "signed": 10.0, "cosigned": 60.0}
_NO_LEADER = "no leader is known: too few members are connected, or they are choosing one"


def problems(node: Services) -> dict[str, str]:
    """What is wrong, by the part that has the trouble; empty for a healthy node."""
    found = dict(node.alarms) | _late(node)
    parts = {
        "signer": node.ledger.signer.alarm or node.ledger.signing_trouble,
        "verifier": node.verifier.alarm,
        "voter": node.voter.alarm,
        "disk": node.space.alarm,
        "search": node.index.trouble,
        "consensus": _NO_LEADER if node.raft_status().leader is None else None,
        "self_check": _self_check(node.gatherer.self_check_failures),
    }
    return found | {part: why for part, why in parts.items() if why}


def tolerates(node: Services) -> int:
    """How many more members may fail before the ledger stops, as far as this node sees; negative when it has."""
    policy = node.ledger.store.policy
    needed = max(policy.quorum, len(policy.members) // 2 + 1)
    return 1 + len(node.raft_status().connected) - needed


def _late(node: Services) -> dict[str, str]:
    size, raft = node.ledger.store.size, node.raft_status()
    waiting = {
        "applied": f"{raft.commit_index - raft.applied_index} entries are committed and not applied",
        "signed": f"this node has signed {node.ledger.signed.value} of its {size} entries",
        "cosigned": f"a quorum has cosigned {node.gatherer.latest_size} of {size} entries",
    }
    lags_s = node.watch.lags_s()
    late = {step: lags_s[step] for step, late_s_max in STEP_LATE_S_MAX.items() if lags_s[step] > late_s_max}
    return {step: f"{waiting[step]}; what is missing has waited for {late_s:.0f} s" for step, late_s in late.items()}


def _self_check(failures: int) -> str | None:
    if not failures:
        return None
    return f"{failures} receipts or certificates did not pass this node's own check and were not sent; see its log"
