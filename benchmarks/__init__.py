"""How fast, as ratios against named peers, measured in one run; importing this imports nothing heavy."""
