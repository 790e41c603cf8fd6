with ledger as (
    select
        session_id,
        session_date,
        count(*) as trades,
        sum(gross_pnl_cents) as gross_pnl_cents,
        sum(net_pnl_cents) as net_pnl_cents,
        sum(net_pnl_usd) as net_pnl_usd
    from {{ ref('fct_trades') }}
    group by session_id, session_date
)

select
    coalesce(daily.session_id, ledger.session_id) as session_id,
    coalesce(daily.session_date, ledger.session_date) as session_date,
    daily.net_pnl_cents,
    ledger.net_pnl_cents as net_pnl_cents_of_ledger
from {{ ref('daily_pnl') }} as daily
full join ledger on ledger.session_id = daily.session_id and ledger.session_date = daily.session_date
where
    daily.session_id is null
    or daily.trades <> coalesce(ledger.trades, 0)
    or daily.gross_pnl_cents <> coalesce(ledger.gross_pnl_cents, 0)
    or daily.net_pnl_cents <> coalesce(ledger.net_pnl_cents, 0)
    or daily.net_pnl_usd <> coalesce(ledger.net_pnl_usd, 0)
    or daily.net_pnl_cents <> daily.gross_pnl_cents - daily.commission_cents - daily.slippage_cents
