"""Processes, signals, and writing files safely."""
