"""What to try: machines, boot sequences, argument values.

No kernel is looked at here, so every revision gets the same.
"""

if __name__ == "strategies":
    raise ImportError("import it as xfdfuzz.strategies: this folder is linked into the package")
