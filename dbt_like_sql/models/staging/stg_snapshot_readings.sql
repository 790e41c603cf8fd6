select
    snapshot_id,
    bars_in_sessions,
    bars_outside,
    reason_code,
    reason_message
from {{ source('coverage', 'snapshot_readings') }}
