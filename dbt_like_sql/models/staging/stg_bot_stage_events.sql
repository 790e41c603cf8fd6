select
    id as event_id,
    bot_id,
    from_stage,
    to_stage,
    decision_id,
    actor,
    trace_id,
    created_at as moved_at
from {{ source('blaid', 'bot_stage_events') }}
