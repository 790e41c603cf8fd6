"""One module per migration, in order. Each has a tested downgrade and a line on data safety."""
