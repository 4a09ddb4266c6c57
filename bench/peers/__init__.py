"""amx-v1's reallocation request for two model checkers, SPIN and xfdfuzz: see README.md."""
