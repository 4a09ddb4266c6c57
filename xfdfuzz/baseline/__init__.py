"""What is known to be broken, as files say it (docs/baseline.md)."""
