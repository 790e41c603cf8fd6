select
    id as score_id,
    bot_id,
    session_id,
    score,
    tier,
    cast(subscores as json) as subscores,
    cast(blockers as json) as blockers,
    policy_hash,
    trace_id,
    created_at as scored_at
from {{ source('blaid', 'autonomy_scores') }}
