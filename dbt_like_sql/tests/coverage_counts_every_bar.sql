select
    readings.snapshot_id,
    snapshots.bar_count,
    readings.bars_outside,
    coalesce(sum(coverage.bars), 0) as bars_found
from {{ ref('stg_snapshot_readings') }} as readings
inner join {{ ref('stg_snapshots') }} as snapshots on snapshots.snapshot_id = readings.snapshot_id
left join {{ ref('coverage') }} as coverage on coverage.snapshot_id = readings.snapshot_id
where readings.reason_code is null
group by readings.snapshot_id, snapshots.bar_count, readings.bars_outside
having coalesce(sum(coverage.bars), 0) + readings.bars_outside is distinct from snapshots.bar_count
