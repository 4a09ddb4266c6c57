"""A program that people walk through in a terminal, forwards and backwards.

``walk`` is where they are and what is known there, from what a page shows; ``panel`` how that is written; ``app`` the
screen and its keys, the only module that imports textual, which not everybody has.
"""
