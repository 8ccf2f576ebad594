"""Search spaces: what may change in a network, how a candidate is drawn, patched and checked."""
