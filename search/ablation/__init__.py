"""`archspec ablate`: rows of a study over seeds, their costs, statistics, tables and pictures."""
