"""A verifier node of the registry: consensus, store, HTTP API, verification (DESIGN 5)."""
