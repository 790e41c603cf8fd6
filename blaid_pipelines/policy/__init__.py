"""What is allowed: the policy file and its bounds, the promotion gates, the autonomy score, moves between stages.

Nothing here reads market data or calls anything: evidence comes in, a verdict with its numbers goes out. Missing
evidence is UNKNOWN, and UNKNOWN never passes.
"""
