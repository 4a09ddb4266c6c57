"""C structures in Python, and the same that note what is read and written."""
