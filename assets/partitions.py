"""The two dynamic partition sets: bots by name, bar series by symbol. A bot is a key, never an asset of its own."""

import dagster as dg

BOTS_NAME = "bots"
SERIES_NAME = "instruments"

BOTS = dg.DynamicPartitionsDefinition(name=BOTS_NAME)
SERIES = dg.DynamicPartitionsDefinition(name=SERIES_NAME)  # keys are series: MES.c.0, 6EH4
