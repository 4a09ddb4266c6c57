"""What people and programs read of a run: terminal text, JSON objects, saved findings."""
