select
    id as reconciliation_id,
    snapshot_id,
    content_hash,
    kind,
    cast(other as json) as other,
    status,
    policy_hash,
    cast(numbers as json) as numbers,
    cast(reasons as json) as reasons,
    simulated,
    trace_id,
    created_at as compared_at,
    row_number() over (partition by snapshot_id, kind order by created_at desc, id desc) = 1 as is_latest
from {{ source('blaid', 'reconciliations') }}
