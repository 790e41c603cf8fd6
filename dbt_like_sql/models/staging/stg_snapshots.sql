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
    simulated,
    cast(provenance as json) as provenance,
    trace_id,
    created_at
from {{ source('blaid', 'snapshots') }}
