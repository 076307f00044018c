"""The SDK: what a program does in a ledger. Its public face is the package `client` itself; here are the defaults.

* `ledger`: `Client`, for programs with an event loop; `reading`, the part of it that signs nothing.
* `blocking`: `SyncClient`, the same for programs without one; `loop_thread` runs it.
* `offline`: `verify`, which asks nobody.
* `inputs`, `results`: what goes in and what comes out.
"""

PATIENCE_S = 60.0  # how long to keep trying while too few nodes answer
VERDICT_TIMEOUT_S = 900.0
STRAGGLERS_S = 20.0  # after a verdict, for the votes of the other nodes
PAGE = 20  # entries
INTERVAL_S = 10.0  # between two looks at a ledger that is watched
