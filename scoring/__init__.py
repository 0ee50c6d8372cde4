"""Scores of one case by the rules of each year's organisers, and plain ones. Knows no torch, Ray, path or file.

The public names are in __init__.pyi; each is imported when it is first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
