with gate_counts as (
    select
        decision_id,
        count(*) as gates_total,
        count(*) filter (where status = 'PASS') as gates_passed,
        count(*) filter (where status = 'FAIL') as gates_failed,
        count(*) filter (where status = 'UNKNOWN') as gates_unknown,
        any_value(status) filter (where gate_name = 'quality') as quality_status
    from {{ ref('gate_results') }}
    group by decision_id
),

-- As `blaid status` shows it: the first gate that failed, else the first that could not be evaluated.
deciding_gates as (
    select
        decision_id,
        gate_name,
        reason_code
    from {{ ref('gate_results') }}
    where status <> 'PASS'
    qualify row_number() over (partition by decision_id order by status = 'FAIL' desc, gate_number) = 1
),

cited as (
    select
        decision_id,
        unnest(cast(request_ids as varchar[])) as request_id
    from {{ ref('stg_promotion_decisions') }}
),

proof as (
    select
        cited.decision_id,
        count(*) as requests_cited,
        count(*) filter (where requests.success) as requests_proven,
        -- Unknown rather than too low: no sum where a cited request has no row, or a purchase no price.
        case
            when
                count(*) filter (
                    where requests.request_id is null
                    or (purchases.request_id is not null and purchases.cost_usd is null)
                ) = 0
                then coalesce(sum(purchases.cost_usd), 0)
        end as requests_cost_usd
    from cited
    left join {{ ref('stg_provider_requests') }} as requests on requests.request_id = cited.request_id
    left join {{ ref('stg_purchases') }} as purchases on purchases.request_id = cited.request_id
    group by cited.decision_id
)

select
    decisions.decision_id,
    decisions.decided_at,
    decisions.is_latest,
    decisions.bot_id,
    bots.bot_name,
    bots.stage as current_stage,
    sessions.instrument,
    sessions.series,
    sessions.strategy_family,
    decisions.from_stage,
    decisions.to_stage,
    decisions.decision,
    decisions.gate_set,
    coalesce(gate_counts.gates_total, 0) as gates_total,
    coalesce(gate_counts.gates_passed, 0) as gates_passed,
    coalesce(gate_counts.gates_failed, 0) as gates_failed,
    coalesce(gate_counts.gates_unknown, 0) as gates_unknown,
    deciding_gates.gate_name as first_failing_gate,
    deciding_gates.reason_code as first_failing_reason,
    decisions.session_id,
    sessions.status as session_status,
    sessions.reason_code as session_reason,
    sessions.trades,
    sessions.net_pnl_cents,
    {{ usd('sessions.net_pnl_cents') }} as net_pnl_usd,
    {{ usd('sessions.capital_cents') }} as capital_usd,
    sessions.max_drawdown_pct,
    cast(sessions.metrics ->> '$.win_rate_pct' as double) as win_rate_pct,
    cast(sessions.metrics ->> '$.profit_factor' as double) as profit_factor,
    cast(sessions.metrics ->> '$.psr0' as double) as psr0,
    scores.score,
    scores.tier,
    decisions.snapshot_id,
    snapshots.content_hash,
    snapshots.simulated,
    coalesce(verdicts.status, gate_counts.quality_status, 'UNKNOWN') as quality_status,
    coalesce(proof.requests_cited, 0) as requests_cited,
    coalesce(proof.requests_proven, 0) as requests_proven,
    case when proof.decision_id is null then 0 else proof.requests_cost_usd end as requests_cost_usd,
    decisions.strategy_hash,
    sessions.params_hash,
    decisions.policy_hash,
    sessions.engine_version,
    sessions.result_hash,
    decisions.decision_hash,
    decisions.trace_id
from {{ ref('stg_promotion_decisions') }} as decisions
inner join {{ ref('stg_bots') }} as bots on bots.bot_id = decisions.bot_id
inner join {{ ref('stg_backtest_sessions') }} as sessions on sessions.session_id = decisions.session_id
left join gate_counts on gate_counts.decision_id = decisions.decision_id
left join deciding_gates on deciding_gates.decision_id = decisions.decision_id
left join proof on proof.decision_id = decisions.decision_id
left join {{ ref('stg_autonomy_scores') }} as scores on scores.score_id = decisions.score_id
left join {{ ref('stg_snapshots') }} as snapshots on snapshots.snapshot_id = decisions.snapshot_id
left join {{ ref('stg_quality_verdicts') }} as verdicts on verdicts.verdict_id = sessions.verdict_id
