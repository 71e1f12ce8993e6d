"""Functions that write a file from a module, or an engine from a file."""
