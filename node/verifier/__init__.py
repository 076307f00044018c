"""The verifier: a process of its own that runs the watermark library on strangers' files, and who minds it."""
