select
    sessions.coverage_id,
    snapshots.series,
    snapshots.bar_schema,
    snapshots.instrument,
    sessions.session_date,
    date_trunc('month', sessions.session_date)::date as month,
    case
        when sessions.bars = 0 then 'EMPTY'
        when sessions.present_minutes < sessions.expected_minutes then 'PARTIAL'
        else 'COMPLETE'
    end as status,
    sessions.bars,
    sessions.expected_minutes,
    sessions.present_minutes,
    sessions.expected_minutes - sessions.present_minutes as missing_minutes,
    sessions.gaps,
    sessions.longest_gap_minutes,
    sessions.session_open,
    sessions.session_close,
    sessions.first_bar,
    sessions.last_bar,
    sessions.volume,
    sessions.contracts,
    snapshots.provenance ->> '$.source' as source,
    snapshots.simulated,
    sessions.snapshot_id
from {{ ref('stg_session_coverage') }} as sessions
inner join {{ ref('stg_snapshots') }} as snapshots on snapshots.snapshot_id = sessions.snapshot_id
