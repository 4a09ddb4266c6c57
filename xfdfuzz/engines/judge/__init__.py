"""One program on one kernel, or on two: what it does, what it breaks, the plainest program that still does."""
