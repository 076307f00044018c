"""The owner's and the auditor's side: the `wmreg` command and the SDK below it.

Nothing here believes a node. What a node says is shown as its word; what counts is checked against the reader's
trust policy, and every tree that was once seen must be continued by every later one.
"""
