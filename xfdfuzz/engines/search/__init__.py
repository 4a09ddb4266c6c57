"""Programs drawn at random, until one shows something that nothing has shown before."""
