"""Engines: replay judges a program, fuzz searches for one."""
