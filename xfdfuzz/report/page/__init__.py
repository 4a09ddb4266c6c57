"""A finding as a page that people open in a browser, and the index of several.

``runs`` is what a page shows, ``data`` that as an object for ``page.js``, ``html`` puts it all into one file with the
``assets``, ``index`` makes the page that leads to the others.
"""
