"""What each scheme promises, measured: one module a scheme, `measure(seed, data)` in each."""
