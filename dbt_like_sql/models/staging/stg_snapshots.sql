select
    snapshot_id,
    content_hash,
    dataset,
    schema as bar_schema,
    symbol as series,
    instrument,
    range_start,
    range_end,
    bar_count,
    first_ts as first_bar,
    last_ts as last_bar,
    cast(files as json) as files,
    cast(contracts as json) as contracts,
    simulated,
    cast(provenance as json) as provenance,
    trace_id,
    created_at
from {{ source('blaid', 'snapshots') }}
