select coverage_id
from {{ ref('coverage') }}
where
    present_minutes > expected_minutes
    or present_minutes < 0
    or longest_gap_minutes > missing_minutes
    or (gaps = 0) <> (missing_minutes = 0)
