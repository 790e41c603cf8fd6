select
    coalesce(equity.equity_id, daily.daily_pnl_id) as id,
    equity.net_pnl_cents,
    daily.net_pnl_cents as net_pnl_cents_of_ledger
from {{ ref('equity') }} as equity
full join {{ ref('daily_pnl') }} as daily on daily.daily_pnl_id = equity.equity_id
inner join {{ ref('stg_backtest_sessions') }} as sessions
    on sessions.session_id = coalesce(equity.session_id, daily.session_id)
where
    equity.equity_id is null
    or daily.daily_pnl_id is null
    or equity.trades <> daily.trades
    or equity.net_pnl_cents <> daily.net_pnl_cents
    or equity.equity_cents <> sessions.capital_cents + daily.cumulative_net_pnl_cents
