"""What happened, as typed records: runs, verdicts, measurements, machines. JSON at the
edge only."""
