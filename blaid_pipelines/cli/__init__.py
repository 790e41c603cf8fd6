"""The command ``blaid``: one module a family of commands. Commands parse, call and print; they decide nothing."""
