"""Looking after a node's files while it does not run, or beside it: check, copy, restore, rebuild."""
