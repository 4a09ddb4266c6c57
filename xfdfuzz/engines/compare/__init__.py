"""Revisions held against each other: on many at once, along a patch queue, two in lockstep."""
