"""Engines: replay judges a program, fuzz searches for one."""

#: What can search for violations; engines.hunt has them.
ENGINES = ("hypothesis", "scout", "both")
