select
    id as head_id,
    symbol as series,
    schema as bar_schema,
    dataset,
    source_key,
    snapshot_id,
    trace_id,
    created_at as head_since,
    row_number() over (partition by symbol, schema order by created_at desc, id desc) = 1 as is_latest
from {{ source('blaid', 'series_heads') }}
