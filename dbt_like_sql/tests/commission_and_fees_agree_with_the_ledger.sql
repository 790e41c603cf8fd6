-- The ledger rounds its running balance: a month of it is less than a cent off the exact amount.
select
    trading_cost_id,
    commission_and_fees_cents,
    commission_usd + fees_usd as exact_usd
from {{ ref('trading_costs') }}
where
    commission_usd is null
    or fees_usd is null
    or abs({{ usd('commission_and_fees_cents') }} - (commission_usd + fees_usd)) > 0.01
