select
    heads.found as series_with_a_head,
    mart.found as rows_of_series
from (select count(distinct (series, bar_schema)) as found from {{ ref('stg_series_heads') }}) as heads
cross join (select count(*) as found from {{ ref('series') }}) as mart
where heads.found <> mart.found
