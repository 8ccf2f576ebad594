"""Names of released checkpoints, one source a file; importing this package registers them all.

A source is a list of rules that turn its names into archspec's, see archspec.weights.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
