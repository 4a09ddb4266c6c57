"""Engines: what judges, compares and searches programs."""

#: What can search for violations; engines.search.hunt has them.
ENGINES = ("hypothesis", "scout", "both")
