"""What networks are made of: one family of parts a file.

attention, token_mlp and most others are mixers; ffns, norms, acts, positions, stems, downsamplers and heads hold the
plain parts of their kind; context_broadcast is a modifier. Every module here registers its parts when it is imported,
and this package imports them all: adding a file enrols it.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
