select
    requests.provider || '/' || cast(requests.created_at as date) || '/' || requests.endpoint || '/'
    || requests.simulated as data_cost_id,
    requests.provider,
    cast(requests.created_at as date) as day,
    requests.endpoint,
    requests.category,
    requests.simulated,
    count(*) as requests,
    count(*) filter (where requests.success) as succeeded,
    count(*) filter (where not requests.success) as failed,
    count(*) filter (where requests.success is null) as unresolved,
    coalesce(sum(requests.bar_count), 0)::bigint as bars,
    coalesce(sum(requests.response_bytes), 0)::bigint as response_bytes,
    count(*) filter (where purchases.is_billed) as purchases,
    count(*) filter (where purchases.is_billed and purchases.cost_usd is null) as purchases_without_price,
    -- Unknown rather than too low: no sum where a purchase has no price.
    case
        when count(*) filter (where purchases.is_billed and purchases.cost_usd is null) = 0
            then coalesce(sum(purchases.cost_usd) filter (where purchases.is_billed), 0)
    end as cost_usd
from {{ ref('stg_provider_requests') }} as requests
left join {{ ref('stg_purchases') }} as purchases on purchases.request_id = requests.request_id
group by requests.provider, cast(requests.created_at as date), requests.endpoint, requests.category, requests.simulated
