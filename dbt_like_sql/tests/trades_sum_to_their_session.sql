with summed as (
    select
        session_id,
        count(*) as trades,
        sum(net_pnl_cents) as net_pnl_cents
    from {{ ref('fct_trades') }}
    group by session_id
)

select
    sessions.session_id,
    sessions.trades,
    summed.trades as trades_found,
    sessions.net_pnl_cents,
    summed.net_pnl_cents as net_pnl_cents_found
from {{ ref('stg_backtest_sessions') }} as sessions
left join summed on summed.session_id = sessions.session_id
where
    sessions.status = 'COMPLETED'
    and (
        coalesce(summed.trades, 0) is distinct from sessions.trades
        or coalesce(summed.net_pnl_cents, 0) is distinct from sessions.net_pnl_cents
    )
