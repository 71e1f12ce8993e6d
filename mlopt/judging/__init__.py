"""Ship it? Policy, verdicts, and the run that gives one. `policy` and `verdict` import
neither torch nor a runtime."""
