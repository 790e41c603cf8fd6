select
    lake.found as trades_of_the_lake,
    mart.found as trades_of_the_mart
from (select count(*) as found from {{ ref('stg_trades') }}) as lake
cross join (select count(*) as found from {{ ref('fct_trades') }}) as mart
where lake.found <> mart.found
