with minutes as (
    select
        snapshot_id,
        count(*) as sessions,
        count(*) filter (where status = 'COMPLETE') as sessions_complete,
        count(*) filter (where status = 'EMPTY') as sessions_empty,
        sum(expected_minutes) as expected_minutes,
        sum(missing_minutes) as missing_minutes,
        sum(gaps)::bigint as gaps,
        max(longest_gap_minutes) as longest_gap_minutes
    from {{ ref('coverage') }}
    group by snapshot_id
),

compared as (
    select
        snapshot_id,
        case
            when count(*) filter (where status = 'FAIL') > 0 then 'FAIL'
            when count(*) filter (where status <> 'PASS') > 0 then 'UNKNOWN'
            else 'PASS'
        end as status,
        string_agg(kind, ',' order by kind) as kinds
    from {{ ref('stg_reconciliations') }}
    where is_latest
    group by snapshot_id
),

-- The segments of the head's own source: what a pull need not buy again.
held as (
    select
        series,
        bar_schema,
        source_key,
        count(*) as segments,
        min(range_start) as held_from,
        max(range_end) as held_to
    from {{ ref('stg_lake_segments') }}
    group by series, bar_schema, source_key
)

select
    heads.series || '/' || heads.bar_schema as series_id,
    heads.series,
    heads.bar_schema,
    snapshots.instrument,
    heads.snapshot_id,
    heads.head_since,
    heads.source_key,
    snapshots.provenance ->> '$.source' as source,
    snapshots.simulated,
    snapshots.range_start,
    snapshots.range_end,
    snapshots.bar_count as bars,
    json_array_length(snapshots.contracts)::bigint as contracts,
    coalesce(verdicts.status, 'UNKNOWN') as quality_status,
    verdicts.judged_at,
    coalesce(compared.status, 'NONE') as reconciliation_status,
    compared.kinds as reconciliation_kinds,
    minutes.sessions,
    minutes.sessions_complete,
    minutes.sessions_empty,
    minutes.expected_minutes,
    minutes.missing_minutes,
    round(100 * minutes.missing_minutes / nullif(minutes.expected_minutes, 0), 4) as missing_pct,
    minutes.gaps,
    minutes.longest_gap_minutes,
    readings.bars_outside as bars_outside_sessions,
    readings.reason_code,
    readings.reason_message,
    coalesce(held.segments, 0) as segments,
    held.held_from,
    held.held_to
from {{ ref('stg_series_heads') }} as heads
inner join {{ ref('stg_snapshots') }} as snapshots on snapshots.snapshot_id = heads.snapshot_id
left join {{ ref('stg_snapshot_readings') }} as readings on readings.snapshot_id = heads.snapshot_id
left join minutes on minutes.snapshot_id = heads.snapshot_id
left join compared on compared.snapshot_id = heads.snapshot_id
left join {{ ref('stg_quality_verdicts') }} as verdicts
    on verdicts.snapshot_id = heads.snapshot_id and verdicts.is_latest
left join held
    on held.series = heads.series and held.bar_schema = heads.bar_schema and held.source_key = heads.source_key
where heads.is_latest
