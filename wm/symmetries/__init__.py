"""What can be done to a network's channels without changing what it computes, layer by layer."""
