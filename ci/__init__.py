"""What the jobs to copy and `make dist` ask."""
