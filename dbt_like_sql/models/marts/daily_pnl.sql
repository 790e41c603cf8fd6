with booked as (
    select
        session_id,
        session_date,
        count(*) as trades,
        count(*) filter (where net_pnl_cents > 0) as winners,
        count(*) filter (where net_pnl_cents < 0) as losers,
        sum(gross_pnl_cents)::bigint as gross_pnl_cents,
        sum(commission_cents)::bigint as commission_cents,
        sum(slippage_cents)::bigint as slippage_cents,
        sum(net_pnl_cents)::bigint as net_pnl_cents
    from {{ ref('stg_trades') }}
    group by session_id, session_date
),

-- Days from the equity file, money from the trades: a day without a trade is a day with 0.
days as (
    select
        coalesce(equity.session_id, booked.session_id) as session_id,
        coalesce(equity.session_date, booked.session_date) as session_date,
        coalesce(booked.trades, 0) as trades,
        coalesce(booked.winners, 0) as winners,
        coalesce(booked.losers, 0) as losers,
        coalesce(booked.gross_pnl_cents, 0) as gross_pnl_cents,
        coalesce(booked.commission_cents, 0) as commission_cents,
        coalesce(booked.slippage_cents, 0) as slippage_cents,
        coalesce(booked.net_pnl_cents, 0) as net_pnl_cents
    from {{ ref('stg_equity') }} as equity
    full join booked on booked.session_id = equity.session_id and booked.session_date = equity.session_date
)

select
    days.session_id || '/' || days.session_date as daily_pnl_id,
    days.session_id,
    sessions.is_latest,
    sessions.bot_id,
    bots.bot_name,
    sessions.instrument,
    sessions.series,
    days.session_date,
    days.trades,
    days.winners,
    days.losers,
    days.gross_pnl_cents,
    days.commission_cents,
    days.slippage_cents,
    days.net_pnl_cents,
    {{ usd('days.gross_pnl_cents') }} as gross_pnl_usd,
    {{ usd('days.commission_cents + days.slippage_cents') }} as costs_usd,
    {{ usd('days.net_pnl_cents') }} as net_pnl_usd,
    sum(days.net_pnl_cents) over so_far::bigint as cumulative_net_pnl_cents,
    {{ usd('sum(days.net_pnl_cents) over so_far') }} as cumulative_net_pnl_usd,
    snapshots.simulated,
    sessions.snapshot_id
from days
inner join {{ ref('stg_backtest_sessions') }} as sessions on sessions.session_id = days.session_id
inner join {{ ref('stg_bots') }} as bots on bots.bot_id = sessions.bot_id
inner join {{ ref('stg_snapshots') }} as snapshots on snapshots.snapshot_id = sessions.snapshot_id
window so_far as (partition by days.session_id order by days.session_date rows unbounded preceding)
