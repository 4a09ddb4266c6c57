"""Engines: replay judges a program, fuzz searches for one."""

#: What can search for violations; engines.search.hunt has them.
ENGINES = ("hypothesis", "scout", "both")
#: What detection is measured with besides; engines.yardsticks has them.
YARDSTICKS = ("random", "explore")
