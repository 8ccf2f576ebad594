"""How long a network takes: measured whole, or predicted from a table of the times of its units on a device.

setting    on what and how it runs: device, threads, evaluation or training step, batch
timing     clocks of CPUs and GPUs, runs taken in turns, and what they come to: a median and quartiles
runs       what is timed: a whole network, or one in a chain of its units; and a fixed piece of work to compare with
peak       the memory that a run needs at its peak
measure    whole networks
table      the file of units' times, one for a setting, that people share
fill       measures the units that a table does not know yet
predict    a plan's latency from a table, beside a fit on multiply-accumulates alone
"""
