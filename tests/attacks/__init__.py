"""Each file is named for its attack and says what it costs the attacker, what us, and which bound is proven."""
