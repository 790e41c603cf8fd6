select
    id as segment_id,
    dataset,
    schema as bar_schema,
    symbol as series,
    source_key,
    range_start,
    range_end,
    path,
    file_sha256,
    bar_count,
    simulated,
    created_at
from {{ source('blaid', 'lake_segments') }}
