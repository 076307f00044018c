"""`wmreg demo`: the whole life of a marked model on one machine, played with the same commands that people use."""
