"""Proof of use: the recorder that writes one row per external call, and the comparison of calls with rows."""
