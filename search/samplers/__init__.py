"""Which candidate is proposed next, and which training ends early."""
