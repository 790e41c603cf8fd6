with booked as (
    select
        session_id,
        date_trunc('month', session_date)::date as month,
        count(*) as trades,
        2 * sum(contracts)::bigint as sides,
        sum(gross_pnl_cents)::bigint as gross_pnl_cents,
        sum(commission_cents)::bigint as commission_and_fees_cents,
        sum(slippage_cents)::bigint as slippage_cents,
        sum(net_pnl_cents)::bigint as net_pnl_cents
    from {{ ref('stg_trades') }}
    group by all
),

-- The ledger books commission and fees as one amount; the session's own cost table says what each of them was.
priced as (
    select
        booked.*,
        booked.sides * cast(sessions.spec ->> '$.costs.commission_per_side_microusd' as bigint) as commission_microusd,
        booked.sides * cast(sessions.spec ->> '$.costs.fees_per_side_microusd' as bigint) as fees_microusd
    from booked
    inner join {{ ref('stg_backtest_sessions') }} as sessions on sessions.session_id = booked.session_id
)

select
    priced.session_id || '/' || priced.month as trading_cost_id,
    priced.session_id,
    sessions.is_latest,
    sessions.bot_id,
    bots.bot_name,
    sessions.instrument,
    sessions.series,
    priced.month,
    priced.trades,
    priced.sides,
    priced.commission_and_fees_cents,
    priced.slippage_cents,
    {{ usd('priced.commission_and_fees_cents + priced.slippage_cents') }} as costs_usd,
    cast(priced.commission_microusd * cast(0.000001 as decimal(7, 6)) as decimal(18, 6)) as commission_usd,
    cast(priced.fees_microusd * cast(0.000001 as decimal(7, 6)) as decimal(18, 6)) as fees_usd,
    {{ usd('priced.slippage_cents') }} as slippage_usd,
    {{ usd('priced.gross_pnl_cents') }} as gross_pnl_usd,
    {{ usd('priced.net_pnl_cents') }} as net_pnl_usd,
    round((priced.commission_and_fees_cents + priced.slippage_cents) / 100 / priced.trades, 4) as costs_per_trade_usd,
    snapshots.simulated,
    sessions.snapshot_id
from priced
inner join {{ ref('stg_backtest_sessions') }} as sessions on sessions.session_id = priced.session_id
inner join {{ ref('stg_bots') }} as bots on bots.bot_id = sessions.bot_id
inner join {{ ref('stg_snapshots') }} as snapshots on snapshots.snapshot_id = sessions.snapshot_id
