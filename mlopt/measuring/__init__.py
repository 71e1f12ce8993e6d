"""Is it faster? Protocol, statistics, environment."""
