"""What the schemes beside MTLSign promise, measured: a module each, with `measure(seed, data)`."""
