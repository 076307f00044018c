"""The ledger's rules: bytes, values and times in; values or exceptions out.

Nothing here reads a clock, a file, a random number or the network (an import-linter contract enforces it), so
that a court's laptop, an auditor and every node come to the same answer from the same bytes.
"""
