"""The file of a search: what is searched for, where, by whom, and what candidates cost."""
