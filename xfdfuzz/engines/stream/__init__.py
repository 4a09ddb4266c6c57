"""What an engine tells while it works, whoever listens."""
