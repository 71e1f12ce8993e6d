"""Is it still right? Outputs compared, tolerances, accuracy."""
