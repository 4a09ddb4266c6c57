"""The exhaustive engine: breadth-first over a scope, every state once, shortest programs."""
