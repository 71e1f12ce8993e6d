"""Precision: a scheme is data, and the target decides it."""
