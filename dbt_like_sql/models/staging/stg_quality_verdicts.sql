select
    id as verdict_id,
    snapshot_id,
    content_hash,
    status,
    suite_version,
    policy_hash,
    cast(reasons as json) as reasons,
    trace_id,
    created_at as judged_at
from {{ source('blaid', 'quality_verdicts') }}
