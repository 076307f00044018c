"""The audit of a whole ledger: mirror, replay on all cores, comparison of nodes and times, findings."""
