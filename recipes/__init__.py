"""Complete, runnable recipes: the networks and the data that they name."""
