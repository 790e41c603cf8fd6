-- The provider bills a purchase at the quote asked for just before it: another row of the same trace and range.
select
    bought.request_id,
    bought.provider,
    bought.endpoint,
    bought.trace_id,
    bought.series,
    bought.bar_schema,
    bought.start_ts,
    bought.end_ts,
    bought.bar_count,
    bought.simulated,
    bought.success,
    bought.created_at as bought_at,
    bought.error_code is null or bought.error_code not in {{ unbilled() }} as is_billed,
    coalesce(any_value(bought.cost_usd), arg_max(quotes.cost_usd, quotes.created_at)) as cost_usd
from {{ ref('stg_provider_requests') }} as bought
left join {{ ref('stg_provider_requests') }} as quotes
    on
        quotes.endpoint = 'metadata.get_cost'
        and quotes.success
        and quotes.provider = bought.provider
        and quotes.trace_id = bought.trace_id
        and quotes.series = bought.series
        and quotes.bar_schema = bought.bar_schema
        and quotes.start_ts = bought.start_ts
        and quotes.end_ts = bought.end_ts
where bought.endpoint = 'timeseries.get_range'
group by all
