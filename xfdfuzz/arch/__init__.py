"""The processor, from Intel's manuals: state components, XCR0/XSS/XFD/XFD_ERR, the XSAVE family, #NM.

Nothing here knows of Linux.
"""
