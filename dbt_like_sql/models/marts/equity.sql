select
    equity.equity_id,
    equity.session_id,
    sessions.is_latest,
    sessions.bot_id,
    bots.bot_name,
    sessions.instrument,
    sessions.series,
    equity.session_date,
    row_number() over (partition by equity.session_id order by equity.session_date) as session_number,
    equity.trades,
    equity.net_pnl_cents,
    equity.equity_cents,
    equity.equity_cents + equity.drawdown_cents as peak_cents,
    equity.drawdown_cents,
    {{ usd('equity.net_pnl_cents') }} as net_pnl_usd,
    {{ usd('equity.equity_cents') }} as equity_usd,
    {{ usd('equity.equity_cents + equity.drawdown_cents') }} as peak_usd,
    {{ usd('equity.drawdown_cents') }} as drawdown_usd,
    100 * equity.drawdown_cents / sessions.capital_cents as drawdown_pct,
    100 * (equity.equity_cents - sessions.capital_cents) / sessions.capital_cents as return_pct,
    snapshots.simulated,
    sessions.snapshot_id
from {{ ref('stg_equity') }} as equity
inner join {{ ref('stg_backtest_sessions') }} as sessions on sessions.session_id = equity.session_id
inner join {{ ref('stg_bots') }} as bots on bots.bot_id = sessions.bot_id
inner join {{ ref('stg_snapshots') }} as snapshots on snapshots.snapshot_id = sessions.snapshot_id
