with summed as (
    select
        session_id,
        sum(net_pnl_cents) as net_pnl_cents,
        arg_max(cumulative_net_pnl_cents, session_date) as cumulative_net_pnl_cents
    from {{ ref('daily_pnl') }}
    group by session_id
)

select
    sessions.session_id,
    sessions.net_pnl_cents,
    summed.net_pnl_cents as net_pnl_cents_found
from {{ ref('stg_backtest_sessions') }} as sessions
left join summed on summed.session_id = sessions.session_id
where
    sessions.status = 'COMPLETED'
    and (
        coalesce(summed.net_pnl_cents, 0) <> sessions.net_pnl_cents
        or coalesce(summed.cumulative_net_pnl_cents, 0) <> sessions.net_pnl_cents
    )
