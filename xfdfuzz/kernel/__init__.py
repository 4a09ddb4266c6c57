"""Linux: the state (state.py) and v5.16's functions over it, one module per kernel area."""
