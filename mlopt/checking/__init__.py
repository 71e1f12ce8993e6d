"""Whether a result is still right: outputs compared, tolerances, accuracy."""
