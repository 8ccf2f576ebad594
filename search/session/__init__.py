"""A search under way: its folder, its record, what is begun next and what came of it."""
