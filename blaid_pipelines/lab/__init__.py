"""The LAB: what happens to a bot from its bars to a promotion decision, and the explanation of it."""
