"""Studies: ablations, and searches under a budget."""
