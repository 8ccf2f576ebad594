"""The shipped YAML files: networks, ablations, searches and recipes."""
