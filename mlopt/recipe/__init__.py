"""What is asked for: the schema, YAML, options of the command line, and whether the
passes fit."""
