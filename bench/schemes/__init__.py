"""What each scheme's paper promises, measured: a module for each, with one function, `measure`."""
