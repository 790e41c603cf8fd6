with checks as (
    select
        verdict_id,
        unnest(cast(checks as json[])) as entry,
        generate_subscripts(cast(checks as json[]), 1) as check_number
    from {{ ref('stg_quality_verdicts') }}
),

read as (
    select
        verdict_id,
        check_number,
        entry ->> '$.name' as check_name,
        entry ->> '$.status' as check_status,
        entry ->> '$.reason.code' as reason_code,
        entry ->> '$.reason.message' as reason_message,
        entry ->> '$.reason.suggested_fix' as suggested_fix,
        entry -> '$.numbers' as numbers,
        -- The gate names a threshold as policy does; every other number is what it observed.
        list_filter(json_keys(entry -> '$.numbers'), lambda name: name like 'max\_%' escape '\' or name like 'min\_%' escape '\')[1] as threshold_name
    from checks
)

select
    verdicts.verdict_id || '/' || coalesce(read.check_number, 0) as quality_id,
    snapshots.series,
    snapshots.bar_schema,
    snapshots.instrument,
    verdicts.snapshot_id,
    coalesce(heads.snapshot_id is not null, false) as is_head,
    verdicts.verdict_id,
    verdicts.judged_at,
    verdicts.is_latest,
    verdicts.status as verdict,
    read.check_number,
    read.check_name,
    read.check_status as status,
    read.reason_code,
    read.reason_message,
    read.suggested_fix,
    coalesce(read.numbers ->> '$.worst', read.numbers ->> '$.observed_value', read.numbers ->> '$.unexpected_count') as observed,
    read.threshold_name,
    read.numbers ->> ('$.' || read.threshold_name) as threshold,
    read.numbers,
    snapshots.simulated,
    verdicts.suite_version,
    verdicts.policy_hash
from {{ ref('stg_quality_verdicts') }} as verdicts
inner join {{ ref('stg_snapshots') }} as snapshots on snapshots.snapshot_id = verdicts.snapshot_id
left join read on read.verdict_id = verdicts.verdict_id
left join {{ ref('stg_series_heads') }} as heads on heads.snapshot_id = verdicts.snapshot_id and heads.is_latest
