select
    snapshot_id || '/' || session_date as coverage_id,
    snapshot_id,
    session_date,
    session_open,
    session_close,
    bars,
    expected_minutes,
    present_minutes,
    gaps,
    longest_gap_minutes,
    first_bar,
    last_bar,
    volume,
    contracts
from {{ source('coverage', 'session_coverage') }}
