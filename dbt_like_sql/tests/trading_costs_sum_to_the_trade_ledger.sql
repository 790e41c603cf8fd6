with ledger as (
    select
        session_id,
        sum(commission_cents + slippage_cents) as costs_cents
    from {{ ref('fct_trades') }}
    group by session_id
),

summed as (
    select
        session_id,
        sum(commission_and_fees_cents + slippage_cents) as costs_cents
    from {{ ref('trading_costs') }}
    group by session_id
)

select
    coalesce(ledger.session_id, summed.session_id) as session_id,
    ledger.costs_cents,
    summed.costs_cents as costs_cents_found
from ledger
full join summed on summed.session_id = ledger.session_id
where ledger.costs_cents is distinct from summed.costs_cents
