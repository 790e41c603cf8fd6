select
    log.found as requests_of_the_log,
    mart.found as requests_of_the_mart
from (select count(*) as found from {{ ref('stg_provider_requests') }}) as log
cross join (select coalesce(sum(requests), 0) as found from {{ ref('data_costs') }}) as mart
where log.found <> mart.found
