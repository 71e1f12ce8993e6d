"""What the gate's verdicts are worth: false alarms, power, and what the harness
costs."""
