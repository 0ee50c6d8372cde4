"""U-Nets, losses, thresholds and inference in pure PyTorch. Knows no Ray, Zarr, DALI, rank or path.

The public names are in __init__.pyi; each is imported when it is first asked for, so that a command which only parses
its flags does not wait for PyTorch, DALI or Zarr.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
