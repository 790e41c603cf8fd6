select
    id as removal_id,
    path,
    file_sha256,
    file_bytes,
    why,
    trace_id,
    created_at as removed_at
from {{ source('blaid', 'lake_removals') }}
