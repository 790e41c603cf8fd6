select
    id as verdict_id,
    snapshot_id,
    content_hash,
    status,
    suite_version,
    policy_hash,
    cast(checks as json) as checks,
    cast(reasons as json) as reasons,
    trace_id,
    created_at as judged_at,
    row_number() over (partition by snapshot_id order by created_at desc, id desc) = 1 as is_latest
from {{ source('blaid', 'quality_verdicts') }}
